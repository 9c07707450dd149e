"""The pickle of a `.pth` that is being written: a flat state dict, or values nested as they were.

It is what `torch.save` writes (protocol 2, `_rebuild_tensor_v2`, and `_v3` for dtypes without a
storage class of their own), so that `torch.load(weights_only=True)` and `mmap=True` take it.
Sources: `torch/serialization.py`, `torch/_weights_only_unpickler.py` of torch 2.13.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from tensorkeep.dtypes import DType
from tensorkeep.formats.contents import Items, contiguous_stride
from tensorkeep.formats.layout import Entry, Named, Request

_BATCH = 1000
_CLASSES = {
    "collections.OrderedDict": b"ccollections\nOrderedDict\n",
    "collections.Counter": b"ccollections\nCounter\n",
}


def state_dict_pickle(request: Request) -> bytes:
    """`{name: tensor}` as a pickle; aliases share the storage of the tensor that they name."""
    out = Emitter()
    keyed = {entry.name: (entry, key) for key, entry in enumerate(request.entries)}
    names = request.names
    out.code(b"\x80\x02")
    versions = request.versions
    if versions is None:
        out.code(b"}")
    else:
        out.ordered_dict()
    for start in range(0, len(names), _BATCH):
        out.code(b"(")
        for name in names[start : start + _BATCH]:
            out.text(name)
            out.tensor(*keyed[request.aliases.get(name, name)])
        out.code(b"u")
    if versions is not None:
        out.code(b"}")
        out.text("_metadata")
        out.ordered_dict()
        out.pairs(versions)
        out.code(b"sb")
    out.code(b".")
    return b"".join(out.parts)


def nested_pickle(request: Request) -> bytes:
    """`request.tree` as a pickle; see `layout.Named` for what may stand in it."""
    out = Emitter()
    keyed = {entry.name: (entry, key) for key, entry in enumerate(request.entries)}
    out.code(b"\x80\x02")
    # A file may nest deeper than Python calls: what is still to be written is a list.
    todo: list[object] = [request.tree]
    while todo:
        item = todo.pop()
        if isinstance(item, _Code):
            out.code(item.data)
        elif isinstance(item, Named):
            out.tensor(*keyed[request.aliases.get(item.name, item.name)])
        elif isinstance(item, _CONTAINERS):
            todo += reversed(_spelled(item, out))
        else:
            out.atom(item)
    out.code(b".")
    return b"".join(out.parts)


class _Code:
    """Opcodes between values."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


_CONTAINERS = (dict, list, tuple, set, Items)


def _spelled(value: object, out: Emitter) -> list[object]:
    """What makes the container `value`: opcodes, and its items still to be written."""
    if isinstance(value, Items):
        out.once(_CLASSES[value.type])
        # A class of a mapping is called without arguments and filled.
        pairs = [part for pair in value.pairs for part in pair]
        made = [_Code(b")R"), *_batches(pairs, b"u", 2)]
        state = value.attributes
        return [*made, state, _Code(b"b")] if state else made
    if isinstance(value, dict):
        pairs = [part for pair in value.items() for part in pair]
        return [_Code(b"}"), *_batches(pairs, b"u", 2)]
    if isinstance(value, tuple):
        return [_Code(b"("), *value, _Code(b"t")]
    if isinstance(value, set):
        out.name("builtins", "set")
        return [_Code(b"]"), *_batches(list(value), b"e", 1), _Code(b"\x85R")]
    assert isinstance(value, list)
    return [_Code(b"]"), *_batches(value, b"e", 1)]


def _batches(items: Sequence[object], code: bytes, each: int) -> list[object]:
    """`items` between MARK and `code`, so many at once as Python's own pickler puts there."""
    step, made = _BATCH * each, list[object]()
    for at in range(0, len(items), step):
        made += [_Code(b"("), *items[at : at + step], _Code(code)]
    return made


class Emitter:
    """Writes opcodes. Names that repeat are memoised, everything else is spelled out."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._memo: dict[bytes, bytes] = {}

    def code(self, data: bytes) -> None:
        self.parts.append(data)

    def once(self, data: bytes) -> None:
        """`data` the first time, a look into the memo after that."""
        known = self._memo.get(data)
        if known is not None:
            self.parts.append(known)
            return
        slot = len(self._memo)
        if slot < 256:
            put, get = b"q" + bytes([slot]), b"h" + bytes([slot])
        else:
            put, get = (code + struct.pack("<I", slot) for code in (b"r", b"j"))
        self.parts.append(data + put)
        self._memo[data] = get

    def name(self, module: str, name: str) -> None:
        self.once(f"c{module}\n{name}\n".encode("ascii"))

    def text(self, text: str) -> None:
        self.parts.append(_unicode(text))

    def ordered_dict(self) -> None:
        self.name("collections", "OrderedDict")
        self.parts.append(b")R")

    def tensor(self, entry: Entry, key: int) -> None:
        typed = entry.dtype.storage != "UntypedStorage"
        self.name("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")
        self.parts.append(b"((")
        self.once(_unicode("storage"))
        self.name("torch" if typed else "torch.storage", entry.dtype.storage)
        self.parts.append(_unicode(str(key)))
        self.once(_unicode("cpu"))
        self.parts.append(_integer(entry.nbytes // entry.dtype.itemsize if typed else entry.nbytes))
        self.parts.append(b"tQK\x00")
        self.numbers(entry.shape)
        self.numbers(contiguous_stride(entry.shape))
        self.parts.append(b"\x89")
        self.ordered_dict()
        if not typed:
            self.dtype(entry.dtype)
        self.parts.append(b"tR")

    def dtype(self, dtype: DType) -> None:
        self.name("torch", dtype.name)

    def numbers(self, numbers: tuple[int, ...]) -> None:
        packed = b"".join(map(_integer, numbers))
        short = {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(numbers))
        self.parts.append(b"(" + packed + b"t" if short is None else packed + short)

    def atom(self, value: object) -> None:
        """None, a number, a text or bytes; a text or bytes a second time costs a few bytes."""
        if isinstance(value, str):
            self.once(_unicode(value))
        elif isinstance(value, bytes):
            self.name("_codecs", "encode")
            self.once(_unicode(value.decode("latin-1")))
            self.once(_unicode("latin1"))
            self.parts.append(b"\x86R")
        elif isinstance(value, complex):
            self.name("builtins", "complex")
            self.parts += [_float(value.real), _float(value.imag), b"\x86R"]
        elif isinstance(value, float):
            self.parts.append(_float(value))
        else:
            self.value(value)

    def value(self, value: object) -> None:
        """A plain value: what a state dict's `_metadata` is made of."""
        if isinstance(value, Mapping):
            self.parts.append(b"}")
            self.pairs(value)
        elif isinstance(value, bool):
            self.parts.append(b"\x88" if value else b"\x89")
        elif isinstance(value, int):
            self.parts.append(_integer(value))
        elif isinstance(value, str):
            self.text(value)
        else:
            self.parts.append(b"N")

    def pairs(self, pairs: Mapping[str, object]) -> None:
        """SETITEM for each pair, on the mapping that lies on the stack."""
        for key, value in pairs.items():
            self.text(key)
            self.value(value)
            self.parts.append(b"s")


def _unicode(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    if 0 <= number < 1 << 8:
        return b"K" + bytes([number])
    if 0 <= number < 1 << 16:
        return b"M" + struct.pack("<H", number)
    if -(1 << 31) <= number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _float(number: float) -> bytes:
    return b"G" + struct.pack(">d", number)
