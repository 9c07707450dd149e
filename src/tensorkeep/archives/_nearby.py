"""Small reads that follow each other closely, out of one larger read."""

from __future__ import annotations

from tensorkeep.stores import Blob

_WINDOW = 256 << 10
# What begins so soon behind the last read is one of many: storages of a few numbers each.
_NEAR = 4 << 10


class Nearby:
    """A blob as headers are read from it.

    Twenty thousand headers of small members cost as many calls otherwise; those of large members,
    which lie far from each other, are read alone.
    """

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.name = blob.name
        self.size = blob.size
        # One value, since several threads may ask: where the bytes begin, and the bytes.
        self._kept = (0, b"")
        self._end = -1

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises what the blob raises."""
        begin, data = self._kept
        if offset < begin or offset + length > begin + len(data):
            near = self._end >= 0 and 0 <= offset - self._end <= _NEAR
            most = min(_WINDOW, self.size - offset) if near else 0
            begin, data = self._kept = offset, self.blob.read(offset, max(length, most))
        self._end = offset + length
        return data[offset - begin : offset - begin + length]
