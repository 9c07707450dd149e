"""A run of bytes inside another blob, as a blob: a member of an archive, a chunk of a shard."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tensorkeep.errors import Damaged, StoreError
from tensorkeep.stores import Blob
from tensorkeep.stores._descriptor import require_range


class SliceBlob:
    """Bytes `offset` to `offset + size` of `blob`, which stays open when this one is closed.

    Raises `Damaged` if they reach beyond it.
    """

    def __init__(self, blob: Blob, offset: int, size: int, name: str) -> None:
        if offset < 0 or size < 0 or offset + size > blob.size:
            raise Damaged(
                blob.name,
                expected=f"{size} bytes at byte {offset}",
                got=f"{blob.size} bytes in all",
                where=name,
            )
        self.name = name
        self.size = size
        self.bytes_read = 0
        self._blob: Blob | None = blob
        self._offset = offset

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        return self._holder(offset, length).read(self._offset + offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, format "B") from `offset`."""
        self._holder(offset, buffer.nbytes).read_into(self._offset + offset, buffer)

    def _holder(self, offset: int, length: int) -> Blob:
        if self._blob is None:
            raise StoreError(self.name, expected="an open blob", got="one that was closed")
        require_range(self.name, self.size, offset, length)
        self.bytes_read += length
        return self._blob

    def advise_sequential(self) -> None:
        """Said to the blob that holds the bytes."""
        if self._blob is not None:
            self._blob.advise_sequential()

    def check_unchanged(self) -> None:
        """Asked of the blob that holds the bytes."""
        if self._blob is not None:
            self._blob.check_unchanged()

    def close(self) -> None:
        """Let go. The blob that holds the bytes is closed by whoever opened it."""
        self._blob = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
