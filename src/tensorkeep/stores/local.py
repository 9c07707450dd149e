"""Files and folders of this machine, read in place and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorkeep.errors import Damaged, StoreError
from tensorkeep.stores import Buffer, _kernel
from tensorkeep.stores._descriptor import DescriptorBlob, require_file
from tensorkeep.stores._errors import file_name, mapped
from tensorkeep.stores._placing import destination, open_new, place, refuse_existing, sync_folder

# A smaller file meets a full disk at its first write anyway.
_WORTH_RESERVING = 1 << 20


class LocalBlob(DescriptorBlob):
    """A file by its path; symbolic links are followed.

    Raises `NotFound`, `AccessDenied`, `StoreError` (a folder, pipe or device) and `BadArgument`
    (what no path can be).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = file_name(path)
        self.path = Path(name)
        with mapped(name):
            # Opening a device can act on it, and opening a pipe waits for its writer for ever.
            require_file(self.path.stat(), name)
            flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(name, flags)
        super().__init__(descriptor, name)
        # Archives on tape answer a non-blocking read of a real file with EAGAIN.
        os.set_blocking(descriptor, True)


class LocalFolder:
    """A folder whose files are read, as the parts of a sharded checkpoint are.

    Symbolic links in it are followed: hub caches are made of links that lead out of the folder.
    What a *name* may not do is lead out of it, since names come out of index files.
    Raises `NotFound`, `AccessDenied`, and `StoreError` if `path` is no folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = file_name(path)
        self.path = Path(self.name)
        with mapped(self.name):
            if not stat.S_ISDIR(self.path.stat().st_mode):
                raise StoreError(self.name, expected="a folder", got="a file")

    def names(self) -> list[str]:
        """The names of all entries that are not folders, sorted; broken links are among them."""
        with mapped(self.name), os.scandir(self.path) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())

    def open(self, name: str) -> LocalBlob:
        """The file `name`. Raises `Damaged` if that is not the plain name of a file in here."""
        if not plain_name(name):
            raise Damaged(
                self.name,
                expected="the plain name of a file in this folder",
                got=f"'{name}'",
                remedy="Do not use this checkpoint: it points outside its own folder.",
            )
        return LocalBlob(self.path / name)


def plain_name(name: str) -> bool:
    """Whether `name` stays in its folder: no separator (of Windows neither), no dots, no NUL."""
    return name not in {"", ".", ".."} and not set(name) & {"/", "\\", "\0"}


def same_file(a: str | os.PathLike[str] | int, b: str | os.PathLike[str] | int) -> bool:
    """Whether two paths (or open descriptors) are one file, by whatever links they lead there.

    False if one of them does not exist or cannot be looked at.
    """
    try:
        first, second = os.stat(a), os.stat(b)  # noqa: PTH116 - descriptors too
    except (OSError, ValueError):
        return False
    return os.path.samestat(first, second)


class LocalSink:
    """A file being written; it appears under `path` when committed, durable and whole.

    `size`, where it is known, reserves the room at once (a full disk raises `NoSpace` here and
    not after an hour), and a commit of fewer or more bytes is refused. Permissions are 0666 less
    the umask, or those of the file that is overwritten. `overwrite` follows a symbolic link and
    replaces the file it leads to. Killed with SIGKILL it leaves nothing on Linux, except between
    two calls of a commit with `overwrite`, where a hidden `.NAME.XXXXXXXX.tmp` can stay.

    Raises `AlreadyExists` (here, or at commit if somebody else was faster), `NotFound`,
    `AccessDenied`, `NoSpace`, `BadArgument`. `name` is what errors call it: `path` if empty.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        size: int | None = None,
        name: str = "",
    ) -> None:
        self.name = name or os.fsdecode(path)
        self._overwrite = overwrite
        self._size = size
        self._end = 0
        self._failed = False
        self._lock = threading.Lock()
        self._descriptor, self._temporary = -1, None
        self.committed = False
        self.path = destination(path, overwrite=overwrite)
        try:
            with mapped(self.name):
                self._descriptor, self._temporary = open_new(self.path)
                self._prepare()
        except BaseException:
            self.abort()
            raise

    def _prepare(self) -> None:
        if self._size is not None and self._size >= _WORTH_RESERVING:
            _kernel.fallocate(self._descriptor, self._size)
        if self._overwrite:
            old = refuse_existing(self.path, self.name, overwrite=True)
            if old is not None:
                # A file that only its owner may read stays so. FAT has no permissions to keep.
                with contextlib.suppress(OSError):
                    os.fchmod(self._descriptor, stat.S_IMODE(old.st_mode) & 0o777)

    def fileno(self) -> int:
        """The descriptor, for copies inside the kernel."""
        return self._descriptor

    def write_at(self, offset: int, data: Buffer) -> None:
        """Put `data` at `offset`. Raises `NoSpace`; after a failed write a commit is refused."""
        if self._descriptor < 0:
            raise StoreError(self.name, expected="an open sink", got="one that was closed")
        view = memoryview(data).cast("B")
        try:
            with mapped(self.name, f"offset {offset}"):
                _write_all(self._descriptor, view, offset)
        except BaseException:
            self._failed = True
            raise
        with self._lock:
            self._end = max(self._end, offset + view.nbytes)

    def commit(self) -> None:
        """Flush to the device, appear under the name, make the name durable. Twice is once.

        Raises `AlreadyExists`, `NoSpace`, `StoreError`; then nothing is left behind.
        """
        if self.committed:
            return
        try:
            self._require_complete()
            with mapped(self.name):
                # One fsync at the end: writing back earlier (fadvise, sync_file_range) was
                # slower as often as faster, and O_DIRECT leaves the next reader a cold cache.
                os.fsync(self._descriptor)
                if self._overwrite:
                    refuse_existing(self.path, self.name, overwrite=True)
                place(self._descriptor, self._temporary, self.path, overwrite=self._overwrite)
        except BaseException:
            self.abort()
            raise
        self.committed, self._temporary = True, None
        self._close()
        with mapped(self.name):
            sync_folder(self.path.parent)

    def abort(self) -> None:
        """Leave nothing behind. After a commit, or again, it does nothing."""
        self._close()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            with contextlib.suppress(OSError):  # it must not hide the error that led here
                temporary.unlink()

    def _require_complete(self) -> None:
        if self._descriptor < 0 or self._failed:
            got = "one that was aborted" if self._descriptor < 0 else "a write that failed"
            raise StoreError(self.name, expected="a sink that was written", got=got)
        if self._size is not None and self._end != self._size:
            raise StoreError(
                self.name, expected=f"{self._size} bytes to be written", got=f"{self._end}"
            )

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # fsync has reported what there was to report
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count
