"""A file object from where it stands: torch.load reads a checkpoint behind other bytes."""

from __future__ import annotations

import io
import os
from typing import Any


def from_here(file: Any) -> Any:  # noqa: ANN401
    """`file` if it stands at its start, else one whose start is where it stands.

    What cannot tell where it stands is given back as it is: the store that opens it says so.
    """
    tell = getattr(file, "tell", None)
    try:
        start = tell() if callable(tell) else 0
    except (OSError, io.UnsupportedOperation):
        return file
    return _Tail(file, start) if start else file


class _Tail:
    """The bytes of `file` from `start` on; positions are counted from there."""

    def __init__(self, file: Any, start: int) -> None:  # noqa: ANN401
        self._file, self._start = file, start
        self.name = getattr(file, "name", f"<{type(file).__name__}>")

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from the position."""
        data: bytes = self._file.read(size)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, and say where it is."""
        self._file.seek(offset + self._start if whence == os.SEEK_SET else offset, whence)
        return self.tell()

    def tell(self) -> int:
        """The position."""
        return int(self._file.tell()) - self._start
