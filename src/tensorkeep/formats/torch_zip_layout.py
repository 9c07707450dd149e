"""Where tensors lie in a `.pth` that is being written. The pickle that names them: `_pickling`.

Source: `torch/serialization.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from tensorkeep.archives.zip_writer import ZipPlan
from tensorkeep.formats._pickling import nested_pickle, state_dict_pickle
from tensorkeep.formats.layout import Entry, Layout, Request
from tensorkeep.provenance import PREFIX, RECORD

NAME = "torch_zip"
_ROOT = "archive"
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
    pickle = state_dict_pickle(request) if request.tree is None else nested_pickle(request)
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
