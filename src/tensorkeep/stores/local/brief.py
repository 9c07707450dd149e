"""A file of this machine that is open only while it is read."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from tensorkeep.errors import ChangedWhileRead, StoreError
from tensorkeep.stores.local.reading import LocalBlob


class BriefBlob:
    """As `LocalBlob`, and holds no descriptor: thousands of files cannot all be open at once.

    Every read opens the file, and finds it as it was or raises `ChangedWhileRead`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with LocalBlob(path) as blob:
            self.name = blob.name
            self.path = blob.path
            self.size = blob.size
            self._status = _status(blob)
        self.bytes_read = 0
        self._closed = False

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        with self.opened() as blob:
            data = blob.read(offset, length)
        self.bytes_read += length
        return data

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, format "B") from `offset`."""
        with self.opened() as blob:
            blob.read_into(offset, buffer)
        self.bytes_read += buffer.nbytes

    def opened(self) -> LocalBlob:
        """The file, for the caller to close. Raises `ChangedWhileRead` if it is another one."""
        if self._closed:
            raise StoreError(self.name, expected="an open file", got="one that was closed")
        blob = LocalBlob(self.path)
        if _status(blob) == self._status:
            return blob
        blob.close()
        raise ChangedWhileRead(
            self.name,
            expected="the file that was there when it was opened",
            got="another one, or one that was written to since",
            remedy="Wait until nothing writes to it any more, then try again.",
        )

    def advise_sequential(self) -> None:
        """Each read is for itself."""

    def check_unchanged(self) -> None:
        """Raise `ChangedWhileRead` if it is not the file any more that it was."""
        self.opened().close()

    def close(self) -> None:
        """Nothing is open; reading after this raises `StoreError`."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _status(blob: LocalBlob) -> tuple[int, int, int]:
    """What tells one file from another, and a changed file from what it was."""
    found = os.fstat(blob.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns
