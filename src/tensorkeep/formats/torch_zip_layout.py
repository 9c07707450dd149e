"""Where tensors lie in a `.pth` that is being written, and the pickle that names them.

The pickle is what `torch.save` of a plain state dict writes (protocol 2, `_rebuild_tensor_v2`,
and `_v3` for dtypes without a storage class of their own), so that
`torch.load(weights_only=True)` and `mmap=True` take it. Source: `torch/serialization.py`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence

from tensorkeep.archives.zip_writer import ZipPlan
from tensorkeep.dtypes import DType
from tensorkeep.formats.contents import contiguous_stride
from tensorkeep.formats.layout import Entry, Layout, Request
from tensorkeep.provenance import PREFIX, RECORD

NAME = "torch_zip"
_ROOT = "archive"
_BATCH = 1000
_CONSTANTS = {"byteorder": b"little", "version": b"3\n"}


def problem(entry: Entry) -> str:
    """Why torch's format cannot hold this tensor; empty if it can."""
    if entry.dtype.kind == "bits" and entry.dtype.name.startswith(("int", "uint")):
        return f"torch 2.13 cannot save {entry.dtype}"
    if entry.dtype.kind == "quantized":
        return f"{entry.dtype} without its scale crashes torch when it is used"
    return ""


def layout(request: Request) -> Layout:
    """The plan: the pickle first, then the storages, each aligned to 64 bytes."""
    import zlib

    plan = ZipPlan(_ROOT)
    pickle = state_dict_pickle(request)
    small = [(plan.add("data.pkl", len(pickle)), pickle)]
    small.append((plan.add("byteorder", 6), _CONSTANTS["byteorder"]))
    slots = [plan.add(f"data/{key}", e.nbytes) for key, e in enumerate(request.entries)]
    small.append((plan.add("version", 2), _CONSTANTS["version"]))
    text = _text(request.metadata)
    if text:
        small.append((plan.add(RECORD, len(text)), text))
    fixed = [(slot.data_offset, data) for slot, data in small]

    def closing(checksums: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        crcs = {slot.header_offset: zlib.crc32(data) for slot, data in small}
        crcs |= {slot.header_offset: crc for slot, crc in zip(slots, checksums, strict=True)}
        for slot in plan.slots:
            yield slot.header_offset, slot.header(crcs[slot.header_offset])
        yield plan.directory_offset, plan.directory([crcs[s.header_offset] for s in plan.slots])

    positions = [slot.data_offset for slot in slots]
    return Layout(plan.total, positions, fixed, checksums=True, closing=closing)


def _text(metadata: Mapping[str, str]) -> bytes:
    """What the record holds, empty if there is nothing: torch's format has no text of its own."""
    own = {key: value for key, value in metadata.items() if key.startswith(PREFIX)}
    return json.dumps(own, indent=1).encode("ascii") if own else b""


def state_dict_pickle(request: Request) -> bytes:
    """`{name: tensor}` as a pickle; aliases share the storage of the tensor that they name."""
    out = _Emitter()
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


class _Emitter:
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
        self.parts.append(data + b"q" + bytes([slot]))
        self._memo[data] = b"h" + bytes([slot])

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
