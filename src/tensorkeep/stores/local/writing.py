"""A file of this machine, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from types import TracebackType
from typing import Self

from tensorkeep.errors import StoreError
from tensorkeep.stores import Blob, Buffer
from tensorkeep.stores._descriptor import DescriptorBlob
from tensorkeep.stores._errors import mapped
from tensorkeep.stores.local import kernel
from tensorkeep.stores.local.placing import (
    destination,
    open_new,
    place,
    refuse_existing,
    sync_folder,
)

# A smaller file meets a full disk at its first write anyway.
_WORTH_RESERVING = 1 << 20


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
            _require_room(self._descriptor, self._size)
            kernel.fallocate(self._descriptor, self._size)
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
        self._require_open()
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        try:
            with mapped(self.name, f"offset {offset}"):
                _write_all(self._descriptor, view, offset)
        except BaseException:
            self._failed = True
            raise
        with self._lock:
            self._end = max(self._end, offset + view.nbytes)

    def reader(self) -> Blob:
        """What was written so far, read back before it is committed.

        The kernel's copy is dropped first where it lets go of it: what is compared is then what
        the device gives, and not the memory that was written from.
        """
        self._require_open()
        with mapped(self.name):
            os.fsync(self._descriptor)
            if hasattr(os, "posix_fadvise"):
                with contextlib.suppress(OSError):
                    os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            descriptor = os.dup(self._descriptor)
        return DescriptorBlob(descriptor, self.name)

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

    def _require_open(self) -> None:
        if self._descriptor < 0:
            raise StoreError(self.name, expected="an open sink", got="one that was closed")

    def _require_complete(self) -> None:
        self._require_open()
        if self._failed:
            raise StoreError(self.name, expected="whole writes", got="one that failed")
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


def _require_room(descriptor: int, size: int) -> None:
    # Told to reserve more than there is, ext4 first takes all that there is, for seconds, and
    # every other process on the machine meets a full disk meanwhile.
    if not hasattr(os, "fstatvfs"):
        return
    disk = os.fstatvfs(descriptor)
    if disk.f_blocks and size > disk.f_bfree * disk.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(descriptor, view, offset)
        if count == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # it would be tried for ever
        view = view[count:]
        offset += count
