"""Zip archives that lie one after the other in a blob, each whole with positions of its own.

A writer that appends archives to a stream makes such a file. A zip reader looks for the end of
the file and sees the last archive alone; here they are found from the last to the first, each by
its end record: that says how far before it the archive begins.
"""

from __future__ import annotations

from tensorkeep.archives._records import (
    END,
    END64,
    END64_MARK,
    END_MARK,
    LOCATOR,
    LOCATOR_MARK,
)
from tensorkeep.stores import Blob


def boundaries(blob: Blob) -> list[tuple[int, int]]:
    """Begin and end of each archive, in order, as far back as one ends where the next begins.

    If the first does not begin at byte 0, nothing here knows what lies before it.
    """
    found: list[tuple[int, int]] = []
    end = blob.size
    while end > 0:
        start = _start(blob, end)
        if start is None:
            break
        found.append((start, end))
        end = start
    found.reverse()
    return found


def _start(blob: Blob, end: int) -> int | None:
    """Where the archive begins whose end record ends at `end`; None if there is none."""
    at = end - END.size
    if at < 0:
        return None
    fields = END.unpack(blob.read(at, END.size))
    if fields[0] != END_MARK or fields[-1]:
        return None
    size, offset = fields[5:7]
    wide = _wide(blob, at)
    if wide is not None:
        at, size, offset = wide
    start = at - size - offset
    return int(start) if 0 <= start < at else None


def _wide(blob: Blob, end: int) -> tuple[int, int, int] | None:
    """Place of the 64-bit end record, and from it size and offset of the directory."""
    at = end - LOCATOR.size - END64.size
    if at < 0:
        return None
    data = blob.read(at, END64.size + LOCATOR.size)
    if data[END64.size :][:4] != LOCATOR_MARK or data[:4] != END64_MARK:
        return None
    size, offset = END64.unpack(data[: END64.size])[-2:]
    return at, size, offset
