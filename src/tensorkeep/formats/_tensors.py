"""What the few calls mean that torch writes for tensors: `torch/_utils.py` and `torch/_tensor.py`.

A pickle says "call torch._utils._rebuild_tensor_v2 with this storage, offset, size, stride";
here that sentence becomes a `TensorRecord`. Nothing is called. Modules saved whole become
`Module`, tensors made of several `Compound`. What torch would build and nothing here knows stays
`Inert`, with words for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tensorkeep.dtypes import BY_NAME, BY_STORAGE, DType
from tensorkeep.facts import Anomaly, MiB
from tensorkeep.formats import _compounds, _modules, _packed, _values
from tensorkeep.formats.assembled import Compound, Sweep
from tensorkeep.formats.contents import (
    MAX_DIMENSIONS,
    Contents,
    Inert,
    Storage,
    TensorRecord,
    reach,
    words,
)
from tensorkeep.pickles import Call, Extension, Global, Persistent, Program

# One more than the largest byte position that a file offset can name.
_TOO_FAR = 1 << 63
_STORAGE_MODULES = ("torch", "torch.storage", "torch.cuda")
# These opcodes call a function; NEWOBJ asks a class, and a function is none.
_CALLING = ("REDUCE", "INST", "OBJ")
_MOST_NOTES, _LONGEST_NOTE = 16, 300
_FREE, _COPIES = 64 * MiB, 100  # bytes of values that are copies: some, and per byte of the pickle
_PER_BYTE = {"quint4x2": 2, "quint2x4": 4}

# Kinds of `_bounds` that leave no bytes that the tensor could lie in.
_NO_PLACE = ("shape-stride-mismatch", "negative-size", "negative-stride")
_FROM_BYTES = "torch.storage._load_from_bytes"

_Found = tuple[Storage, DType | None] | None
StorageOf = Callable[[Persistent], _Found]


class Interpreter:
    """The lens of torch's pickles: gives `TensorRecord`, `Module`, `Items`, `Inert` for each call.

    `storage_of` finds the storage that a persistent id names, and the dtype of its elements
    (None for an untyped storage). Oddities are added to `anomalies` as they are met. `files` are
    the files that lie in the pickle itself, by their bytes; `more` are programs whose values are
    looked at through this lens, too.
    """

    def __init__(
        self,
        program: Program,
        storage_of: StorageOf,
        anomalies: list[Anomaly],
        files: Mapping[bytes, Contents] | None = None,
        more: Iterable[Program] = (),
    ) -> None:
        # They keep the nodes alive, which are remembered by identity.
        self.programs = [program, *(other for other in more if other is not program)]
        self.changed = program.changed if len(self.programs) == 1 else {}
        for each in self.programs[1:] and self.programs:
            self.changed.update(each.changed)
        self.storage_of = storage_of
        self.anomalies = anomalies
        self.files = files or {}
        self._seen: dict[int, object] = {}
        self._inside: dict[int, _Found] = {}
        self._notes: dict[str, None] = {}
        self._sweep: Sweep | None = None
        self._room = _FREE + _COPIES * sum(each.end - each.start for each in self.programs)

    def __call__(self, value: object) -> object:
        """What `value` means; plain values mean themselves."""
        kind = value.__class__
        if kind is Call or kind is Persistent:
            known = self._seen.get(id(value))
            if known is None:
                made = self._storage(value) if isinstance(value, Persistent) else self._call(value)
                known = self._seen[id(value)] = made
            return known
        if kind is Global or kind is Extension:
            return Inert("name", value)
        return value

    def sweep(self) -> Sweep:
        """See `Sweeping`."""
        if self._sweep is None:
            made = [self(call) for program in self.programs for call in _rebuilding(program)]
            self._sweep = Sweep(
                [value for value in made if isinstance(value, TensorRecord)],
                [value for value in made if isinstance(value, Compound)],
                list(self._notes),
            )
        return self._sweep

    def note(self, text: str) -> None:
        """Keep a sentence for people; the same one once."""
        if len(self._notes) < _MOST_NOTES:
            self._notes[text[-_LONGEST_NOTE:]] = None

    def _call(self, call: object) -> object:
        assert isinstance(call, Call)
        func = call.func
        name = (func.module, func.name) if isinstance(func, Global) else ("", "")
        rebuild = _REBUILDS.get(name) if call.kind in _CALLING else None
        if rebuild is not None and isinstance(call.args, tuple):
            return rebuild(self, call, call.args)
        if self._changed_later(call):
            return Inert("call whose arguments change afterwards", call, unread="object")
        found: object = _modules.module_of(call, self, self.changed)
        if found is None and _modules.class_name(call) == _packed.SCRIPT_OBJECT:
            found = _packed.unpacked(call, self, self.changed)
        if found is not None:
            return found
        # A memoized text of a megabyte costs three bytes to encode again: the values would fill
        # any memory.
        self._room -= _values.copied(call)
        if self._room < 0:
            return Inert("bytes that are copied again and again", call, unread="object")
        return _values.plain_object(call, self)

    def _storage(self, value: Persistent) -> object:
        found = self.storage_of(value)
        if found is None:
            return Inert("storage that cannot be read", value, unread="tensor")
        return _compounds.storage(found[0], found[1], value.offset)

    def storage(self, value: object) -> _Found:
        """The storage that `value` is: a persistent id, or bytes that torch.load would read."""
        if isinstance(value, Persistent):
            return self.storage_of(value)
        if not (isinstance(value, Call) and _is(value, _FROM_BYTES) and self.files):
            return None
        if id(value) not in self._inside:
            self._inside[id(value)] = self._in_bytes(value)
        return self._inside[id(value)]

    def _in_bytes(self, call: Call) -> _Found:
        args = call.args if isinstance(call.args, tuple) else ()
        data = _values.latin1(args[0]) if args else None
        inside = self.files.get(data) if data is not None else None
        if inside is None or inside.error is not None or not isinstance(inside.lens, Interpreter):
            return None
        found = inside.lens.storage(inside.root)
        # Each file counts its storages for itself: the same key in another one is another storage.
        return found and (found[0].under(f"{call.offset}/{found[0].key}"), found[1])

    def _changed_later(self, call: Call) -> bool:
        """Whether the call was given other contents than its arguments have at the end.

        Two levels are looked at: that is as deep as a known class reads its arguments.
        """
        changed = self.changed
        if not changed or not isinstance(call.args, tuple):
            return False
        outer = [arg for arg in call.args if isinstance(arg, list | dict | set)]
        inner = [item for arg in outer for item in arg if isinstance(item, list)]
        return any(changed.get(id(part), -1) > call.offset for part in [*outer, *inner])

    def tensor(
        self,
        call: Call,
        args: tuple[object, ...],
        dtype: DType | None = None,
        *,
        packed: bool = False,
    ) -> object:
        """The record for (storage, offset, size, stride, ...); Inert if they are not that.

        `packed`: of dtypes smaller than a byte several elements share one.
        """
        if len(args) < 4:
            return Inert("tensor without a size", call, unread="tensor")
        offset = args[1]
        size, stride = _values.size_of(args[2]), _values.size_of(args[3])
        found = self.storage(args[0])
        dtype = dtype or (found[1] if found else None)
        if found is None or dtype is None:
            return Inert("tensor without a storage that can be read", call, unread="tensor")
        if not _plain(offset, size, stride):
            return Inert(
                "tensor whose size is no tuple of up to 64 integers", call, unread="tensor"
            )
        assert isinstance(offset, int) and isinstance(size, tuple) and isinstance(stride, tuple)
        record = TensorRecord(dtype, size, stride, offset, found[0])
        kind, what = _bounds(record, _PER_BYTE.get(dtype.name, 1) if packed else 1)
        if kind:
            self.odd(kind, f"a tensor {what}", f"storage {record.storage.key}", call)
            record.problem = what
        if kind in _NO_PLACE:
            # Sizes and ends that are computed from it would mean nothing.
            return Inert(f"tensor that {what}", call, unread="tensor")
        record.requires_grad = len(args) > 4 and args[4] is True
        return record

    def odd(self, kind: str, what: str, where: str, call: Call) -> None:
        """Report an anomaly."""
        self.anomalies.append(Anomaly(kind, what, where, call.offset))


def _rebuilding(program: Program) -> list[Call]:
    """Every call in `program` of a function that makes tensors."""
    return program.calls_of(lambda name: (name.module, name.name) in _REBUILDS)


def _plain(offset: object, size: object, stride: object) -> bool:
    """Whether these are an integer and two tuples of up to 64: looked at as one."""
    if not isinstance(size, tuple) or not isinstance(stride, tuple):
        return False
    longest = max(len(size), len(stride))
    return longest <= MAX_DIMENSIONS and words((offset, *size, *stride))


def _bounds(record: TensorRecord, per_byte: int) -> tuple[str, str]:
    """Kind of the anomaly and words, or two empty strings: may this view be read?"""
    if len(record.shape) != len(record.stride):
        return "shape-stride-mismatch", "has a shape and a stride of different lengths"
    if min((record.offset, *record.shape, *record.stride)) < 0:
        if min((record.offset, *record.shape)) < 0:
            return "negative-size", "has a negative offset or size"
        return "negative-stride", "has a negative stride"
    if record.storage.device == "meta":
        return "", ""  # there is no memory that could be too short
    elements = reach(record.shape, record.stride, record.offset)
    end = -(-elements // per_byte) * record.dtype.itemsize
    if end > record.storage.nbytes:
        length = record.storage.nbytes
        return "storage-out-of-bounds", f"reaches byte {end} of a storage of {length} bytes"
    if record.nbytes >= _TOO_FAR:
        return "declared-size", f"claims {record.nbytes} bytes by repeating its storage"
    return "", ""


def storage_dtype(target: object) -> tuple[bool, DType | None]:
    """Whether `target` names one of torch's storage classes, and the dtype of its elements."""
    if not isinstance(target, Global) or target.module not in _STORAGE_MODULES:
        return False, None
    if target.name == "UntypedStorage":
        return True, None
    dtype = BY_STORAGE.get(target.name)
    return dtype is not None, dtype


def _flags(record: object, metadata: object) -> object:
    """The conj and neg bits: bytes that torch negates while it reads them (torch 1.13 on)."""
    if isinstance(record, TensorRecord) and isinstance(metadata, dict):
        record.conj = bool(metadata.get("conj"))
        record.neg = bool(metadata.get("neg"))
    return record


def _v1(read: Interpreter, call: Call, args: tuple[object, ...]) -> object:
    return read.tensor(call, args)


def _v2(read: Interpreter, call: Call, args: tuple[object, ...]) -> object:
    record = read.tensor(call, args)
    return _flags(record, args[6]) if len(args) > 6 else record


def _v3(read: Interpreter, call: Call, args: tuple[object, ...]) -> object:
    target = args[6] if len(args) > 6 else None
    dtype = None
    if isinstance(target, Global) and target.module == "torch":
        dtype = BY_NAME.get(target.name)
    if dtype is None:
        return Inert("tensor of an unknown dtype", call, unread="tensor")
    record = read.tensor(call, args, dtype)
    return _flags(record, args[7]) if len(args) > 7 else record


def _parameter(read: Interpreter, call: Call, args: tuple[object, ...]) -> object:
    inner = args[0] if args else None
    # A parameter of a parameter is nothing that torch writes; following it would recurse.
    data = read(inner) if isinstance(inner, Call) and not _is(inner, *_WRAPPERS) else inner
    if isinstance(data, Compound):
        return data
    if not isinstance(data, TensorRecord):
        why = data.why if isinstance(data, Inert) else "something that is no tensor"
        return Inert(f"parameter around {why}", call, unread="tensor")
    return _copy(data, parameter=True, requires_grad=len(args) > 1 and args[1] is True)


def _from_type(read: Interpreter, call: Call, args: tuple[object, ...]) -> object:
    """`_rebuild_from_type_v2(func, type, args, state)`: a tensor with Python attributes."""
    if len(args) < 3 or not isinstance(args[0], Global) or not isinstance(args[2], tuple):
        return Inert("tensor subclass", call, unread="tensor")
    func, target = args[0], args[1]
    name = target.qualified if isinstance(target, Global) else "a computed class"
    rebuild = _REBUILDS.get((func.module, func.name))
    if rebuild is _compounds.wrapper:
        return _compounds.wrapped(read, call, name, args[2], args[3] if len(args) > 3 else None)
    if rebuild is None or rebuild is _from_type:
        return Inert(f"tensor subclass {name}", call, unread="tensor")
    made = rebuild(read, call, args[2])
    if name not in _PLAIN_TENSORS and isinstance(made, TensorRecord):
        read.note(f"{name} is a subclass of tensors: the plain tensors under it were taken")
    return made


def _copy(data: TensorRecord, *, parameter: bool, requires_grad: bool) -> TensorRecord:
    twin = TensorRecord(data.dtype, data.shape, data.stride, data.offset, data.storage)
    twin.problem, twin.conj, twin.neg = data.problem, data.conj, data.neg
    twin.parameter, twin.requires_grad = parameter, requires_grad
    return twin


def _moved(read: Interpreter, call: Call, args: tuple[object, ...]) -> object:
    """`_rebuild_device_tensor_from_cpu_tensor(data, dtype, device, requires_grad)`."""
    inner = args[0] if args else None
    data = read(inner) if isinstance(inner, Call) and not _is(inner, *_WRAPPERS) else inner
    same = len(args) > 1 and isinstance(data, TensorRecord) and _named(args[1]) is data.dtype
    if not same or not isinstance(data, TensorRecord):
        return Inert("tensor of another device", call, unread="tensor")
    return _copy(data, parameter=False, requires_grad=len(args) > 3 and args[3] is True)


def _from_bytes(read: Interpreter, call: Call, _args: tuple[object, ...]) -> object:
    """`torch.storage._load_from_bytes(data)`: a storage in a file of torch's old format."""
    found = read.storage(call)
    if found is None:
        return Inert("storage that cannot be read", call, unread="tensor")
    return _compounds.storage(found[0], found[1], call.offset)


def _named(target: object) -> DType | None:
    known = isinstance(target, Global) and target.module == "torch"
    return BY_NAME.get(target.name) if known and isinstance(target, Global) else None


def _is(call: Call, *names: str) -> bool:
    return isinstance(call.func, Global) and call.func.qualified in names


_Rebuild = Callable[[Interpreter, Call, tuple[object, ...]], object]


def _unread(why: str) -> _Rebuild:
    return lambda _read, call, _args: Inert(why, call, unread="tensor")


_PLAIN_TENSORS = (
    "torch.Tensor",
    "torch._tensor.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
)
_WRAPPERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._tensor._rebuild_from_type",
    "torch._tensor._rebuild_from_type_v2",
    "torch.tensor._rebuild_from_type",
)
_REBUILDS: dict[tuple[str, str], _Rebuild] = {
    ("torch._utils", "_rebuild_tensor"): _v1,
    ("torch._utils", "_rebuild_tensor_v2"): _v2,
    ("torch._utils", "_rebuild_tensor_v3"): _v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type"): _from_type,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.tensor", "_rebuild_from_type"): _from_type,
    ("torch._utils", "_rebuild_qtensor"): _compounds.quantized,
    ("torch._utils", "_rebuild_sparse_tensor"): _compounds.sparse,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _compounds.sparse,
    ("torch._utils", "_rebuild_nested_tensor"): _compounds.nested,
    ("torch.nested._internal.nested_tensor", "_rebuild_njt"): _compounds.jagged,
    ("torch._utils", "_rebuild_wrapper_subclass"): _compounds.wrapper,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _compounds.meta,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _compounds.from_numpy,
    ("torch._utils", "_rebuild_xla_tensor"): _compounds.from_numpy,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _moved,
    ("torch.storage", "_load_from_bytes"): _from_bytes,
    ("torch.nn.parameter", "UninitializedParameter"): _unread("uninitialised parameter"),
    ("torch.nn.parameter", "UninitializedBuffer"): _unread("uninitialised buffer"),
}
