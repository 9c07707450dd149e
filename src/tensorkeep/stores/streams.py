"""Bytes that somebody else holds: open file objects, and standard input."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol, Self

from tensorkeep.errors import BadArgument, NoSpace, StoreError, TensorkeepError
from tensorkeep.stores._descriptor import DescriptorBlob, cut_short, require_range
from tensorkeep.stores._errors import mapped, translated

_STEP = 1 << 20


class BinaryFile(Protocol):
    """What is asked of a file object; `readinto` and `seekable` are used where they exist."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes from the position."""

    def seek(self, offset: int, whence: int = 0, /) -> object:
        """Move the position."""

    def tell(self) -> int:
        """The position."""


class FileObjectBlob:
    """A blob over a seekable binary file object, all of it, wherever its position stands.

    Reads take turns (a file object has one position). `close` puts the position back and leaves
    the file open: it is the caller's. Raises `BadArgument` for text files and what cannot seek;
    whatever the object raises on the way becomes `StoreError`.
    """

    def __init__(self, file: BinaryFile, name: str = "") -> None:
        self.name = name or _name_of(file)
        self.bytes_read = 0
        self._lock = threading.Lock()
        self._file: BinaryFile | None = file
        self._require_binary(file)
        self._require_seekable(file)
        with self._foreign():
            self._position = file.tell()
            file.seek(0, os.SEEK_END)
            self.size = file.tell()
            file.seek(self._position)
        self._into = getattr(file, "readinto", None)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        require_range(self.name, self.size, offset, length)
        whole = bytearray(length)
        self.read_into(offset, memoryview(whole))
        return bytes(whole)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, format "B") from `offset`."""
        require_range(self.name, self.size, offset, buffer.nbytes)
        done = 0
        with self._lock:
            file = self._open_file()
            with self._foreign(offset):
                file.seek(offset)
                while done < buffer.nbytes:
                    count = self._some(file, buffer[done:])
                    if count == 0:
                        raise cut_short(self.name, self.size, offset + done)
                    done += count
                    self.bytes_read += count

    def advise_sequential(self) -> None:
        """A file object reads ahead as it likes."""

    def check_unchanged(self) -> None:
        """Only a changed length can be seen from here; that raises `ChangedWhileRead`."""
        with self._lock, self._foreign():
            file = self._open_file()
            file.seek(0, os.SEEK_END)
            end = file.tell()
        if end != self.size:
            raise cut_short(self.name, self.size, end)

    def close(self) -> None:
        """Put the position back where it was. Reading after this raises `StoreError`."""
        with self._lock:
            file, self._file, self._into = self._file, None, None
            if file is not None:
                # The caller may have closed the file first: then there is nothing to put back.
                with suppress(OSError, ValueError):
                    file.seek(self._position)

    def _open_file(self) -> BinaryFile:
        if self._file is None:
            raise StoreError(self.name, expected="an open blob", got="one that was closed")
        return self._file

    def _some(self, file: BinaryFile, buffer: memoryview) -> int:
        if self._into is not None:
            try:
                return self._counted(self._into(buffer), buffer.nbytes)
            except (NotImplementedError, io.UnsupportedOperation):
                self._into = None  # a base class declared it and nobody wrote it
        wanted = min(buffer.nbytes, _STEP)
        data = file.read(wanted)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise BadArgument(
                self.name,
                expected="a file that reads bytes",
                got=f"one that reads {type(data).__name__}",
                remedy='Open it in binary mode ("rb").',
            )
        count = self._counted(len(data), wanted)
        buffer[:count] = data
        return count

    def _counted(self, count: object, limit: int) -> int:
        if isinstance(count, int) and 0 <= count <= limit:
            return count
        raise StoreError(self.name, expected=f"a read of at most {limit} bytes", got=repr(count))

    def _require_binary(self, file: object) -> None:
        if isinstance(file, io.TextIOBase):
            raise BadArgument(
                self.name,
                expected="a binary file",
                got="one opened as text",
                remedy='Open it in binary mode ("rb").',
            )

    def _require_seekable(self, file: object) -> None:
        seekable = getattr(file, "seekable", None)
        with self._foreign():
            if callable(seekable) and not seekable():
                raise BadArgument(
                    self.name,
                    expected="a file that can seek",
                    got="a stream",
                    remedy="Read it into bytes or into a file first.",
                )

    @contextmanager
    def _foreign(self, offset: int = 0) -> Iterator[None]:
        """Turn what the object raises, which may be anything, into an error of ours."""
        where = f"offset {offset}"
        try:
            yield
        except TensorkeepError:
            raise
        except OSError as error:
            raise translated(error, self.name, where) from error
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            raise StoreError(self.name, expected="bytes", got=got[:300], where=where) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _name_of(file: object) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and name else f"<{type(file).__name__}>"


class _SharedBlob(DescriptorBlob):
    """A descriptor that is a duplicate: hints given through it stick to the caller's file."""

    def close(self) -> None:
        self.advise_sequential()
        super().close()


def plain_file_blob(file: object) -> DescriptorBlob | None:
    """A blob that reads the file under `file` by pread, if there is nothing between them.

    So several threads read at once and the position stays. Exact types only: a GzipFile has a
    descriptor too, and other bytes behind it.
    """
    raw = file.raw if type(file) is io.BufferedReader else file
    if type(raw) is not io.FileIO or raw.closed or not raw.readable():
        return None
    name = _name_of(file)
    with mapped(name):
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            return None
        return _SharedBlob(os.dup(raw.fileno()), name)


def stdin_blob(descriptor: int = 0) -> DescriptorBlob:
    """Standard input as a blob: a redirected file in place, anything else through a spool.

    The spool is an unlinked temporary file in the system's folder for those (TMPDIR); memory
    stays bounded. `bytes_read` then starts at what came through the pipe. Raises `BadArgument`
    if standard input is a terminal, `NoSpace` if the spool does not fit, `StoreError`.
    """
    name = "<stdin>"
    with mapped(name):
        if os.isatty(descriptor):
            raise BadArgument(
                name,
                expected="a checkpoint on standard input",
                got="a terminal",
                remedy="Redirect a file (< model.pth) or name its path instead of -.",
            )
        status = os.fstat(descriptor)
        # From the middle of a file only the rest is meant, as a pipe would give it.
        if stat.S_ISREG(status.st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) == 0:
            return _SharedBlob(os.dup(descriptor), name)
    return _spooled(descriptor, name)


def _spooled(source: int, name: str) -> DescriptorBlob:
    import tempfile  # and with it a dozen modules that no other way of opening needs

    buffer = memoryview(bytearray(_STEP))
    with mapped(name), tempfile.TemporaryFile(buffering=0) as spool:
        target = spool.fileno()
        total = 0
        while count := os.readv(source, [buffer]):
            total += count
            _spool(target, buffer[:count])
        blob = DescriptorBlob(os.dup(target), name)
    blob.bytes_read = total
    return blob


def _spool(target: int, data: memoryview) -> None:
    try:
        while data:
            data = data[os.write(target, data) :]
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise NoSpace(
            "<stdin>",
            expected="room for all of it in the folder for temporary files",
            got=os.strerror(error.errno),
            remedy="Set TMPDIR to a folder with more room, or save it to a file first.",
        ) from error
