"""Small reads that follow each other closely, out of one larger read."""

from __future__ import annotations

from tensorkeep.stores import Blob

# What begins so soon behind the last read may be one of many: storages of a few numbers each. How
# much is read with it doubles each time, so that a file of few members has few bytes read.
_NEAR, _WINDOW = 4 << 10, 256 << 10


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
        self._window = _NEAR

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises what the blob raises."""
        begin, data = self._kept
        if offset < begin or offset + length > begin + len(data):
            near = self._end >= 0 and 0 <= offset - self._end <= _NEAR
            self._window = min(2 * self._window, _WINDOW) if near else _NEAR
            most = min(self._window, self.size - offset) if near else 0
            begin, data = self._kept = offset, self.blob.read(offset, max(length, most))
        self._end = offset + length
        return data[offset - begin : offset - begin + length]
