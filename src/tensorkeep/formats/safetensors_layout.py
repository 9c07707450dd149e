"""Where tensors lie in a safetensors file that is being written.

Byte for byte what `save_file` of the official library (0.8) writes for the same tensors and
metadata, except that `__metadata__` keeps the order given (the library shuffles it).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

from tensorkeep.dtypes import DType
from tensorkeep.errors import Unwritable
from tensorkeep.formats.layout import Entry, Layout, Request

NAME = "safetensors"
# The order in which the official library sorts dtypes: its enum, backwards.
_RANK = (
    "U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16",
    "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "F4", "BOOL",
)  # fmt: skip
_ORDER = {name: rank for rank, name in enumerate(_RANK)}
_PACKED = "float4_e2m1fn_x2"
_LONGEST_HEADER = 100_000_000
_RESERVED = "__metadata__"


def problem(entry: Entry) -> str:
    """Why safetensors cannot hold this tensor; empty if it can."""
    if entry.dtype.safetensors is None:
        return f"safetensors has no {entry.dtype}"
    if entry.dtype.name == _PACKED and not entry.shape:
        return "safetensors counts two float4 per byte, and a scalar holds one byte"
    if entry.name == _RESERVED:
        return f"the name {_RESERVED} is reserved"
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid Unicode"
    return ""


def layout(request: Request) -> Layout:
    """The plan. Raises `Unwritable` when the header would be longer than readers accept."""
    order = _sorted(request.entries)
    metadata = {"format": "pt", **request.metadata, **request.aliases}
    header, starts = header_bytes([request.entries[i] for i in order], metadata)
    if len(header) - 8 > _LONGEST_HEADER:
        raise Unwritable(
            "safetensors header",
            expected=f"at most {_LONGEST_HEADER} bytes",
            got=f"{len(header) - 8} for {len(order)} tensors",
            remedy="Split the checkpoint with --shard-size.",
        )
    positions = [0] * len(order)
    for place, i in enumerate(order):
        positions[i] = starts[place]
    total = len(header) + sum(entry.nbytes for entry in request.entries)
    return Layout(total, positions, [(0, header)])


def _sorted(entries: Sequence[Entry]) -> list[int]:
    return sorted(
        range(len(entries)),
        key=lambda i: (
            _ORDER[entries[i].dtype.safetensors or ""],
            entries[i].name.encode("utf-8"),
        ),
    )


def header_shape(dtype: DType, shape: tuple[int, ...]) -> list[int]:
    """The shape as the header writes it: float4 counts elements, torch counts packed pairs."""
    if dtype.name == _PACKED:
        return [*shape[:-1], shape[-1] * 2]
    return list(shape)


def header_bytes(entries: Sequence[Entry], metadata: Mapping[str, str]) -> tuple[bytes, list[int]]:
    """The length and header for `entries`, and each one's position in the file."""
    fields = [f'"{_RESERVED}":{_json(metadata)}'] if metadata else []
    at, starts = 0, []
    for entry in entries:
        end = at + entry.nbytes
        sizes = ",".join(map(str, header_shape(entry.dtype, entry.shape)))
        fields.append(
            f'{_json(entry.name)}:{{"dtype":"{entry.dtype.safetensors}","shape":[{sizes}],'
            f'"data_offsets":[{at},{end}]}}'
        )
        starts.append(at)
        at = end
    text = ("{" + ",".join(fields) + "}").encode("utf-8")
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    return struct.pack("<Q", len(text)) + text, [first + start for start in starts]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
