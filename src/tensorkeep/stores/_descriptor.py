"""Bytes behind a file descriptor, read with pread: what paths, redirected stdin and pipes share."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tensorkeep.errors import ChangedWhileRead, Damaged, StoreError
from tensorkeep.stores._errors import mapped

_STEP = 1 << 20
_MOST_BUFFERS = 1024  # in one call: IOV_MAX of Linux
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(mode: int) -> str:
    """What a file's mode says that it is, for people."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def require_file(status: os.stat_result, name: str) -> None:
    """Refuse what has no fixed bytes at fixed offsets: folders, pipes, devices."""
    if stat.S_ISREG(status.st_mode):
        return
    remedy = (
        "Pipe it in and give - as the path."
        if stat.S_ISFIFO(status.st_mode)
        else "Name a file, not a folder."
        if stat.S_ISDIR(status.st_mode)
        else "Copy its bytes into a file first."
    )
    raise StoreError(name, expected="a regular file", got=kind_of(status.st_mode), remedy=remedy)


def require_range(name: str, size: int, offset: int, length: int) -> None:
    """Refuse a read that is not within `size`: before memory for it is asked for."""
    if offset >= 0 and 0 <= length <= size - offset:
        return
    raise Damaged(
        name, expected=f"{length} bytes", got=f"a file of {size} bytes", where=f"offset {offset}"
    )


def cut_short(name: str, size: int, offset: int) -> ChangedWhileRead:
    """The error for an end of file where there was none when the file was opened."""
    return ChangedWhileRead(
        name,
        expected=f"the {size} bytes that it had when it was opened",
        got=f"the end of the file at {offset}",
        remedy="Wait until nothing writes to it any more, then try again.",
    )


class DescriptorBlob:
    """A regular file, by its descriptor, which this object then owns.

    Raises `StoreError` for what is not a regular file.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.bytes_read = 0
        self._descriptor = descriptor
        try:
            with mapped(name):
                self._opened = os.fstat(descriptor)
            require_file(self._opened, name)
            self.size = self._opened.st_size
        except BaseException:
            self.close()
            raise
        # Read-ahead would fetch 128 KiB around each of a directory's scattered small reads.
        self._advise("POSIX_FADV_RANDOM")

    def fileno(self) -> int:
        """The descriptor, as `os.stat` and `same_file` take it."""
        return self._descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        self._check(offset, length)
        with mapped(self.name, f"offset {offset}"):
            data = os.pread(self._descriptor, length, offset)
        self.bytes_read += len(data)
        if len(data) == length:
            return data
        # One call never returns more than 2 GiB, and less where a signal or a network got in.
        whole = bytearray(length)
        whole[: len(data)] = data
        self._fill(offset + len(data), memoryview(whole)[len(data) :])
        return bytes(whole)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, format "B") from `offset`."""
        self._check(offset, buffer.nbytes)
        self._fill(offset, buffer)

    def read_scattered(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill `buffers` one after the other with the bytes from `offset` on, in few calls."""
        self._check(offset, sum(buffer.nbytes for buffer in buffers))
        for at in range(0, len(buffers), _MOST_BUFFERS):
            some = buffers[at : at + _MOST_BUFFERS]
            total = sum(buffer.nbytes for buffer in some)
            done = 0
            if hasattr(os, "preadv") and len(some) > 1:
                with mapped(self.name, f"offset {offset}"):
                    done = os.preadv(self._descriptor, some, offset)
                self.bytes_read += done
            if done < total:
                self._fill_each(offset, some, done)
            offset += total

    def _fill_each(self, offset: int, buffers: Sequence[memoryview], done: int) -> None:
        """What one call left over, as it may: it never returns more than 2 GiB, say."""
        for buffer in buffers:
            if done < buffer.nbytes:
                self._fill(offset + done, buffer[done:])
            done = max(done - buffer.nbytes, 0)
            offset += buffer.nbytes

    def advise_sequential(self) -> None:
        """Turn the kernel's read-ahead on again."""
        # NORMAL, not SEQUENTIAL: twice the window was no faster from a cold device, and slower
        # with several readers.
        self._advise("POSIX_FADV_NORMAL")

    def check_unchanged(self) -> None:
        """Raise `ChangedWhileRead` if size or modification time moved since it was opened.

        A file that was *replaced* by a rename is no change: this one is still read, whole.
        """
        with mapped(self.name):
            now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) == (self._opened.st_size, self._opened.st_mtime_ns):
            return
        raise ChangedWhileRead(
            self.name,
            expected="the bytes that it had when it was opened",
            got=f"a file written to since (it had {self.size} bytes and has {now.st_size})",
            remedy="Wait until nothing writes to it any more, then try again.",
        )

    def close(self) -> None:
        """Let go of the file. Reading after this raises `StoreError`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _check(self, offset: int, length: int) -> None:
        if self._descriptor < 0:
            raise StoreError(self.name, expected="an open file", got="one that was closed")
        require_range(self.name, self.size, offset, length)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        done, total = 0, buffer.nbytes
        while done < total:
            with mapped(self.name, f"offset {offset + done}"):
                count = _read_some(self._descriptor, buffer[done:], offset + done)
            if count == 0:
                raise cut_short(self.name, self.size, offset + done)
            done += count
            self.bytes_read += count

    def _advise(self, advice: str) -> None:
        # A hint: absent outside Linux and refused by some file systems.
        if hasattr(os, "posix_fadvise") and self._descriptor >= 0:
            try:
                os.posix_fadvise(self._descriptor, 0, 0, getattr(os, advice))
            except OSError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _read_some(descriptor: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    data = os.pread(descriptor, min(_STEP, buffer.nbytes), offset)
    buffer[: len(data)] = data
    return len(data)
