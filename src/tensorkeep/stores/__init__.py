"""Where bytes live, and how they get there whole.

A *blob* is bytes under a name that can be read at any offset; a *sink* is a blob being written
that appears under its name when it is committed and not before. Nothing here knows what the
bytes mean. Formats and the streaming writer call this room; it calls only `errors`.
"""

from __future__ import annotations

from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Blob(Protocol):
    """Bytes that can be read at any offset, from several threads at once.

    `name` is for people, `size` in bytes, `bytes_read` counts what was asked of the device.
    Reads past `size` raise `Damaged`; a file that shrank under us raises `ChangedWhileRead`.
    """

    name: str
    size: int
    bytes_read: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, format "B") from `offset`."""

    def close(self) -> None:
        """Let go of the file. Reading after this is an error."""


class Sink(Protocol):
    """A blob being written. `write_at` may be called from several threads."""

    name: str

    def write_at(self, offset: int, data: Buffer) -> None:
        """Put `data` at `offset`."""

    def commit(self) -> None:
        """Make the bytes durable and let them appear under their name, whole."""

    def abort(self) -> None:
        """Leave nothing behind. After a commit this does nothing."""
