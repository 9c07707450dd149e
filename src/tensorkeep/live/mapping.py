"""Files mapped into memory: tensors without a copy, of files larger than the memory.

The mapping is private to this process, copy on write: what is written to a tensor never reaches the
file, and costs a page each. Nobody closes it; it ends with the last tensor in it.
"""

from __future__ import annotations

import mmap
import platform
import sys
from collections.abc import Sequence

from tensorkeep.live.placing import Piece
from tensorkeep.stores import Blob
from tensorkeep.stores._descriptor import DescriptorBlob
from tensorkeep.stores.local import BriefBlob

# A mapping that may be written to is counted against the memory unless it says that it needs
# none set aside. Python has the name from 3.13 on.
_NORESERVE = getattr(
    mmap,
    "MAP_NORESERVE",
    0x4000
    if sys.platform.startswith("linux") and platform.machine() in ("x86_64", "aarch64")
    else 0,
)

Place = tuple[mmap.mmap, int]


def places(pieces: Sequence[Piece]) -> dict[int, Place]:
    """By number, the pieces that can be used where they lie: mapping and offset.

    The others are no part of a plain file, packed, or at an address that their elements cannot
    have. Raises `Damaged` for what lies beyond the end of its file.
    """
    maps: dict[int, mmap.mmap | None] = {}
    found = {}
    for number, piece in enumerate(pieces):
        place = piece.place
        if place is None:
            continue
        blob, offset = place
        if id(blob) not in maps:
            maps[id(blob)] = mapping_of(blob)
        memory = maps[id(blob)]
        if memory is not None and offset % piece.alignment == 0:
            piece.storage.require()
            found[number] = (memory, offset)
    return found


def mapping_of(blob: Blob) -> mmap.mmap | None:
    """All of the file under `blob`, or None if there is none that can be mapped."""
    if isinstance(blob, BriefBlob):
        with blob.opened() as opened:
            return _mapped(opened)
    return _mapped(blob) if isinstance(blob, DescriptorBlob) else None


def _mapped(blob: DescriptorBlob) -> mmap.mmap | None:
    try:
        return mmap.mmap(
            blob.fileno(),
            blob.size,
            flags=mmap.MAP_PRIVATE | _NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    except (OSError, ValueError, AttributeError):
        # Some file systems cannot, Windows has other flags, an empty file has no pages.
        return None
