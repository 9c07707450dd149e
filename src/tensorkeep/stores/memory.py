"""Bytes that are in this process already."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tensorkeep.errors import BadArgument, StoreError
from tensorkeep.stores import Buffer
from tensorkeep.stores._descriptor import require_range


class MemoryBlob:
    """A blob over bytes, a bytearray or a contiguous memoryview. Nothing is copied.

    While it is open a bytearray cannot change its length. Raises `BadArgument` for a
    memoryview that is not contiguous.
    """

    def __init__(self, data: Buffer, name: str = "<bytes>") -> None:
        view = memoryview(data)
        try:
            # A shape with a zero in it cannot be cast.
            plain = view.cast("B") if view.nbytes else memoryview(b"")
        except (TypeError, ValueError) as error:
            raise BadArgument(
                name,
                expected="contiguous bytes",
                got=f"a memoryview of format '{view.format}' and strides {view.strides}",
                remedy="Copy it with bytes(view) first.",
            ) from error
        self._view: memoryview | None = plain.toreadonly()
        self.name = name
        self.size = view.nbytes
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        return self._slice(offset, length).tobytes()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, format "B") from `offset`."""
        buffer[:] = self._slice(offset, buffer.nbytes)

    def advise_sequential(self) -> None:
        """Memory is not read ahead."""

    def check_unchanged(self) -> None:
        """The caller's memory is the caller's: not watched."""

    def close(self) -> None:
        """Let go of the bytes. Reading after this raises `StoreError`."""
        view, self._view = self._view, None
        if view is not None:
            view.release()

    def _slice(self, offset: int, length: int) -> memoryview:
        if self._view is None:
            raise StoreError(self.name, expected="an open blob", got="one that was closed")
        require_range(self.name, self.size, offset, length)
        self.bytes_read += length
        return self._view[offset : offset + length]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
