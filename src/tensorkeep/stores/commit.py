"""Folders that appear whole or not at all, even if the machine dies: how a checkpoint is committed.

Files are written to `NAME.tmp`, each is made durable, one named last after all the others, then
the folder; a rename gives it its name, and the folder around it is made durable. A crash before
the rename leaves a `NAME.tmp` that nobody reads, one after it a checkpoint. A folder that is
replaced changes places with the new one in one call where the kernel can do that; elsewhere it
waits as `NAME.replaced` until the new one stands. A folder that is deleted is first renamed to
`NAME.deleting`, so that half of it never looks like a checkpoint. `recover` ends what a crash
interrupted. Nothing is deleted before the renames that led to its name are durable. Source for
what must be synced: fsync(2), rename(2), open(2) (O_DIRECT).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorkeep.errors import AlreadyExists, BadArgument
from tensorkeep.stores._errors import mapped
from tensorkeep.stores.local import kernel
from tensorkeep.stores.local.placing import require_parent, sync_folder
from tensorkeep.stores.local.reading import plain_name

# Not `.old`: people give that name to copies that they want to keep.
WRITING, DELETING, ASIDE = ".tmp", ".deleting", ".replaced"
# What O_DIRECT wants lengths, offsets and addresses to be multiples of, on every device of today.
BLOCK = 4096
PIECE = 8 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
# What file systems say that have no links, or no more for this file.
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}

Job = Callable[[], None]


class FolderCommit:
    """The folder `target`, being written. Leaving its `with` block without a commit undoes it.

    Only one process may write below a parent folder at a time; a lock is the caller's. Raises
    `AlreadyExists` if `target` is there and not to be replaced, `NotFound`, `AccessDenied`,
    `NoSpace`.
    """

    def __init__(self, target: Path, *, replace: bool = False) -> None:
        self.target = target
        self.committed = False
        self._replace = replace
        self._temporary = target.with_name(target.name + WRITING)
        with mapped(target):
            require_parent(target)
            self._require_free()
            _clear(self._temporary)
            self._temporary.mkdir()

    def jobs(self, name: str, data: memoryview, size: int, *, direct: bool = False) -> CommitFile:
        """A new file of the first `size` bytes of `data`, as jobs that write it.

        `direct`: past the page cache, which needs `data` to begin on a page and to be padded
        with bytes of no meaning to a multiple of `BLOCK`; where that cannot be, the page cache is
        used. Its `close` makes it durable, `release` is due in any case.
        """
        if not plain_name(name):
            raise BadArgument(self.target, expected="the plain name of a file", got=repr(name))
        return CommitFile(self._temporary / name, os.fspath(self.target / name), data, size, direct)

    def put(self, name: str, data: bytes) -> None:
        """A small file, whole and durable."""
        self.jobs(name, memoryview(data), len(data)).finish()

    def link(self, name: str, source: Path) -> None:
        """A file of another folder that is durable already, as it is: linked, or else copied."""
        if not plain_name(name):
            raise BadArgument(self.target, expected="the plain name of a file", got=repr(name))
        with mapped(self.target / name):
            try:
                os.link(source, self._temporary / name)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _copy(source, self._temporary / name)

    def commit(self) -> None:
        """Let the folder appear. Raises what the constructor raises.

        Then nothing has changed; or, if `committed` is set, it is there and may not be durable.
        """
        with mapped(self.target):
            sync_folder(self._temporary)
            self._require_free()
            self._rename()
            self.committed = True
            sync_folder(self.target.parent)
        # Whatever was there before lies under one of these names now. The new one stands, so that
        # it is no failure if that cannot be deleted: `recover` tries again.
        for suffix in (WRITING, ASIDE):
            with contextlib.suppress(OSError):
                _delete(self.target.with_name(self.target.name + suffix))

    def abort(self) -> None:
        """Leave nothing behind. After a commit it does nothing."""
        if not self.committed:
            with contextlib.suppress(OSError):  # it must not hide the error that led here
                _clear(self._temporary)

    def _rename(self) -> None:
        if not os.path.lexists(self.target):
            self._temporary.rename(self.target)
        elif not kernel.rename(self._temporary, self.target, kernel.EXCHANGE):
            aside = self.target.with_name(self.target.name + ASIDE)
            _clear(aside)
            self.target.rename(aside)
            try:
                self._temporary.rename(self.target)
            except BaseException:
                aside.rename(self.target)
                raise

    def _require_free(self) -> None:
        if not self._replace and os.path.lexists(self.target):
            raise AlreadyExists(
                self.target, expected="a name that is free", got="an existing folder"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()


class CommitFile:
    """A file being written in pieces, by several threads if they like."""

    def __init__(self, path: Path, name: str, data: memoryview, size: int, direct: bool) -> None:
        self.name, self._data, self._size = name, data, size
        with mapped(name):
            self._descriptor, self.direct = _opened(path, direct and bool(size))
            self._end = _padded(size) if self.direct else size
            if self.direct:
                with contextlib.suppress(OSError):
                    kernel.fallocate(self._descriptor, self._end)

    def pieces(self) -> Iterator[Job]:
        """A job for each piece; they may run in any order and at the same time."""
        for start in range(0, self._end, PIECE):
            yield self._piece(start, min(start + PIECE, self._end))

    def _piece(self, start: int, stop: int) -> Job:
        def write() -> None:
            at = start
            with mapped(self.name, f"offset {start}"):
                while at < stop:
                    count = self._write(at, stop)
                    if self.direct:
                        # A disk that is nearly full takes a part of a block, and would for ever.
                        count -= count % BLOCK
                    if count <= 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    at += count

        return write

    def _write(self, at: int, stop: int) -> int:
        direct = self.direct  # another thread may change it meanwhile
        try:
            return os.pwrite(self._descriptor, self._data[at:stop], at)
        except OSError as error:
            if error.errno != errno.EINVAL or not direct:
                raise
        # The file was opened so, but this device wants larger blocks, or a limit cuts one in two.
        import fcntl

        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self.direct = False
        return os.pwrite(self._descriptor, self._data[at:stop], at)

    def close(self) -> None:
        """Cut the padding off and make it durable."""
        with mapped(self.name):
            if self._end > self._size:
                os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)

    def finish(self) -> None:
        """All of it, by the thread that calls."""
        try:
            for piece in self.pieces():
                piece()
            self.close()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of the descriptor, when no piece is being written any more."""
        with contextlib.suppress(OSError):  # `close` has reported what there was to report
            os.close(self._descriptor)


def _opened(path: Path, direct: bool) -> tuple[int, bool]:
    flag = getattr(os, "O_DIRECT", 0) if direct else 0
    if flag:
        with contextlib.suppress(OSError):  # tmpfs and others do not know it
            return os.open(path, _NEW | flag, 0o666), True
        # Some create the file before they refuse the flag.
        path.unlink(missing_ok=True)
    return os.open(path, _NEW, 0o666), False


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def put(path: Path, data: bytes) -> None:
    """A small file beside checkpoints: the old one or this one, durable when it returns.

    A link of that name is replaced, not what it leads to. Raises `AccessDenied`, `NoSpace`,
    `StoreError`.
    """
    # One name for all times, so that what a crash leaves is replaced by the next one.
    temporary = path.with_name(path.name + WRITING)
    with mapped(path):
        temporary.unlink(missing_ok=True)
    try:
        CommitFile(temporary, os.fspath(path), memoryview(data), len(data), False).finish()
        with mapped(path):
            temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def delete(folder: Path) -> None:
    """Delete a checkpoint: it is gone, or there; half of it never goes by its name.

    Raises `AccessDenied`, `StoreError`; `recover` deletes what is left then.
    """
    doomed = folder.with_name(folder.name + DELETING)
    with mapped(folder):
        _clear(doomed)
        folder.rename(doomed)
        sync_folder(folder.parent)
        _delete(doomed)


def recover(parent: Path, belongs: Callable[[str], bool]) -> list[str]:
    """End what a crash interrupted in `parent`; returns what was done, in words.

    `belongs`: whether a name, without the endings of this module, is one of the caller's. What
    cannot be deleted stays, and is said: nobody reads it.
    """
    with mapped(parent):
        left = [parent / name for name in names(parent) if _interrupted(parent / name, belongs)]
        if not left:
            return []
        # Whoever was killed between a rename and its sync left a rename that can still be lost,
        # while what is deleted now stays deleted: the old one and the new one would be gone.
        sync_folder(parent)
        done = [_recovered(each, each.with_name(each.stem)) for each in left]
        sync_folder(parent)
    return done


def _interrupted(path: Path, belongs: Callable[[str], bool]) -> bool:
    return (
        path.suffix in (WRITING, DELETING, ASIDE) and belongs(path.stem) and not path.is_symlink()
    )


def _recovered(left: Path, proper: Path) -> str:
    if left.suffix == ASIDE and not os.path.lexists(proper):
        left.rename(proper)
        return f"{proper.name} was being replaced: the old one is back"
    what = {WRITING: "was half written", DELETING: "was half deleted", ASIDE: "was replaced"}
    try:
        _delete(left)
    except OSError as error:
        return f"{proper.name} {what[left.suffix]}: {left.name} cannot be deleted: {error.strerror}"
    return f"{proper.name} {what[left.suffix]}: the rest of it is deleted"


def _clear(path: Path) -> None:
    """Delete what an earlier commit left, once the renames that gave it its name are durable."""
    if os.path.lexists(path):
        sync_folder(path.parent)
        _delete(path)


def _delete(path: Path) -> None:
    """Remove what is there and all that lies in it, and nothing that a link leads to."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        path.unlink()
        return
    found, folders = [path], [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    found.append(Path(entry.path))
                else:
                    Path(entry.path).unlink()
    for folder in reversed(found):
        folder.rmdir()


def make_folder(path: Path) -> None:
    """The folder, and those above it that are missing; durable, as what will lie in it shall be."""
    with mapped(path):
        missing = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(parents=True, exist_ok=True)
        # The one around it in any case: who made it may have been killed before he synced.
        for folder in {path.parent, *(each.parent for each in missing)}:
            sync_folder(folder)


def names(parent: Path) -> Sequence[str]:
    """The folders in `parent`, sorted; none if it is not there."""
    with mapped(parent):
        try:
            with os.scandir(parent) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
