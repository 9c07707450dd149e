"""Where bytes live, and how they get there whole.

A *blob* is bytes under a name that can be read at any offset; a *sink* is a blob being written
that appears under its name when it is committed and not before. Folders of either serve the
sharded formats. Nothing here knows what the bytes mean. Formats and the streaming writer call
this room; it calls only `errors`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

Buffer = bytes | bytearray | memoryview


class Blob(Protocol):
    """Bytes that can be read at any offset, from several threads at once.

    `name` is for people, `size` in bytes, `bytes_read` counts what was asked of the device
    (exact while one thread reads). Reads past `size` raise `Damaged`; a file that shrank under
    us raises `ChangedWhileRead`.
    """

    name: str
    size: int
    bytes_read: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, format "B") from `offset`."""

    def advise_sequential(self) -> None:
        """Say that most of the bytes will now be read, roughly in order: read ahead."""

    def check_unchanged(self) -> None:
        """Raise `ChangedWhileRead` if the bytes were written to since the blob was opened."""

    def close(self) -> None:
        """Let go of the file, once no other thread reads. Reading after this is an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Sink(Protocol):
    """A blob being written. `write_at` may be called from several threads.

    Leaving its `with` block without a commit aborts it, exception or not.
    """

    name: str

    def write_at(self, offset: int, data: Buffer) -> None:
        """Put `data` at `offset`."""

    def reader(self) -> Blob:
        """What was written so far, read back from the device before it is committed."""

    def commit(self) -> None:
        """Make the bytes durable and let them appear under their name, whole."""

    def abort(self) -> None:
        """Leave nothing behind. After a commit this does nothing. Join writing threads first."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Folder(Protocol):
    """Blobs that lie side by side, as the parts of a sharded checkpoint do."""

    name: str

    def names(self) -> list[str]:
        """The names of the files in it, sorted; folders in it are left out."""

    def open(self, name: str) -> Blob:
        """The file of that name. A name that would lead elsewhere raises `Damaged`."""


class FolderSink(Protocol):
    """A folder being written: all of its files appear together, or none."""

    name: str

    def create(self, name: str, size: int | None = None) -> Sink:
        """A new file in it, `size` bytes long where that is known."""

    def commit(self) -> None:
        """Commit every file, then let the folder appear under its name."""

    def abort(self) -> None:
        """Leave nothing behind. After a commit this does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
