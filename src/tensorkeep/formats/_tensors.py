"""What the few calls mean that torch writes for tensors: `torch/_utils.py` and `torch/_tensor.py`.

A pickle says "call torch._utils._rebuild_tensor_v2 with this storage, offset, size, stride";
here that sentence becomes a `TensorRecord`. Nothing is called. What torch would build and this
module does not know stays `Inert`, with words for it.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorkeep.dtypes import BY_NAME, BY_STORAGE, DType
from tensorkeep.facts import Anomaly
from tensorkeep.formats import _values
from tensorkeep.formats.contents import Inert, Storage, TensorRecord, reach, sizes
from tensorkeep.pickles import Call, Extension, Global, Persistent, Program

# One more than the largest byte position that a file offset can name.
_TOO_FAR = 1 << 63
_STORAGE_MODULES = ("torch", "torch.storage", "torch.cuda")

StorageOf = Callable[[Persistent], tuple[Storage, DType | None] | None]


class Interpreter:
    """The lens of torch's pickles: gives `TensorRecord`, `Items` or `Inert` for each call.

    `storage_of` finds the storage that a persistent id names, and the dtype of its elements
    (None for an untyped storage). Oddities are added to `anomalies` as they are met.
    """

    def __init__(self, program: Program, storage_of: StorageOf, anomalies: list[Anomaly]) -> None:
        self.program = program  # keeps the nodes alive: they are remembered by identity
        self.storage_of = storage_of
        self.anomalies = anomalies
        self._seen: dict[int, object] = {}

    def __call__(self, value: object) -> object:
        """What `value` means; plain values mean themselves."""
        if isinstance(value, Call):
            known = self._seen.get(id(value))
            if known is None:
                known = self._seen[id(value)] = self._call(value)
            return known
        if isinstance(value, Persistent):
            return Inert("storage", value, unread="tensor")
        if isinstance(value, Global | Extension):
            return Inert("name", value)
        return value

    def _call(self, call: Call) -> object:
        func = call.func
        if not isinstance(func, Global):
            return Inert("call of a computed value", call, unread="object")
        rebuild = _REBUILDS.get((func.module, func.name)) if call.kind == "REDUCE" else None
        if rebuild is not None and isinstance(call.args, tuple):
            return rebuild(self, call, call.args)
        if self._changed_later(call):
            return Inert("call whose arguments change afterwards", call, unread="object")
        return _values.plain_object(call, self)

    def _changed_later(self, call: Call) -> bool:
        """Whether the call was given other contents than its arguments have at the end.

        Two levels are looked at: that is as deep as a known class reads its arguments.
        """
        changed = self.program.changed
        if not changed or not isinstance(call.args, tuple):
            return False
        outer = [arg for arg in call.args if isinstance(arg, list | dict | set)]
        inner = [item for arg in outer for item in arg if isinstance(item, list)]
        return any(changed.get(id(part), -1) > call.offset for part in [*outer, *inner])

    def tensor(self, call: Call, args: tuple[object, ...], dtype: DType | None = None) -> object:
        """The record for (storage, offset, size, stride, ...); Inert if they are not that."""
        if len(args) < 4:
            return Inert("tensor without a size", call, unread="tensor")
        storage, offset = args[0], args[1]
        size, stride = _values.size_of(args[2]), _values.size_of(args[3])
        found = self.storage_of(storage) if isinstance(storage, Persistent) else None
        dtype = dtype or (found[1] if found else None)
        if found is None or dtype is None:
            return Inert("tensor without a storage that can be read", call, unread="tensor")
        if not (sizes((offset,)) and sizes(size) and sizes(stride)):
            return Inert(
                "tensor whose size is no tuple of up to 64 integers", call, unread="tensor"
            )
        assert isinstance(offset, int) and isinstance(size, tuple) and isinstance(stride, tuple)
        record = TensorRecord(dtype, size, stride, offset, found[0])
        record.problem = self._problem(record, call)
        if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
            # No place at all: sizes and ends that are computed from it would mean nothing.
            return Inert(f"tensor that {record.problem}", call, unread="tensor")
        record.requires_grad = len(args) > 4 and args[4] is True
        return record

    def _problem(self, record: TensorRecord, call: Call) -> str:
        kind, what = _bounds(record)
        if kind:
            where = f"storage {record.storage.key}"
            self.anomalies.append(Anomaly(kind, f"a tensor {what}", where, call.offset))
        return what


def _bounds(record: TensorRecord) -> tuple[str, str]:
    """Kind of the anomaly and words, or two empty strings: may this view be read?"""
    if len(record.shape) != len(record.stride):
        return "shape-stride-mismatch", "has a shape and a stride of different lengths"
    if record.offset < 0 or min(record.shape, default=0) < 0:
        return "negative-size", "has a negative offset or size"
    if min(record.stride, default=0) < 0:
        return "negative-stride", "has a negative stride"
    end = reach(record.shape, record.stride, record.offset) * record.dtype.itemsize
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
    if name not in _PLAIN_TENSORS:
        return Inert(f"tensor subclass {name}", call, unread="tensor")
    rebuild = _REBUILDS.get((func.module, func.name))
    if rebuild is None or rebuild is _from_type:
        return Inert("tensor subclass", call, unread="tensor")
    return rebuild(read, call, args[2])


def _copy(data: TensorRecord, *, parameter: bool, requires_grad: bool) -> TensorRecord:
    twin = TensorRecord(data.dtype, data.shape, data.stride, data.offset, data.storage)
    twin.problem, twin.conj, twin.neg = data.problem, data.conj, data.neg
    twin.parameter, twin.requires_grad = parameter, requires_grad
    return twin


def _is(call: Call, *names: str) -> bool:
    return isinstance(call.func, Global) and call.func.qualified in names


_Rebuild = Callable[[Interpreter, Call, tuple[object, ...]], object]


def _unread(why: str) -> _Rebuild:
    return lambda _read, call, _args: Inert(why, call, unread="tensor")


_PLAIN_TENSORS = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter")
_WRAPPERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._tensor._rebuild_from_type",
    "torch._tensor._rebuild_from_type_v2",
)
_REBUILDS: dict[tuple[str, str], _Rebuild] = {
    ("torch._utils", "_rebuild_tensor"): _v1,
    ("torch._utils", "_rebuild_tensor_v2"): _v2,
    ("torch._utils", "_rebuild_tensor_v3"): _v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch._utils", "_rebuild_qtensor"): _unread("quantised tensor"),
    ("torch._utils", "_rebuild_sparse_tensor"): _unread("sparse tensor"),
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _unread("sparse tensor"),
    ("torch._utils", "_rebuild_nested_tensor"): _unread("nested tensor"),
    ("torch._utils", "_rebuild_wrapper_subclass"): _unread("tensor subclass"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _unread("meta tensor, without values"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _unread("tensor of another device"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _unread("tensor of another device"),
    ("torch._tensor", "_rebuild_from_type"): _unread("tensor subclass"),
}
