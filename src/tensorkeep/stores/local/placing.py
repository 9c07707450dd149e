"""How a finished file gets its name: all at once, and over nobody else's.

On Linux the file has no name at all while it is written (O_TMPFILE, open(2)), so that even
SIGKILL leaves nothing. Elsewhere it is a hidden `.NAME.XXXXXXXX.tmp` beside its target.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from tensorkeep.errors import AccessDenied, AlreadyExists, BadArgument, NotFound
from tensorkeep.stores._descriptor import kind_of
from tensorkeep.stores._errors import file_name, mapped
from tensorkeep.stores.local import kernel

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EXDEV}
_PROC = "/proc/self/fd"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL


def destination(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The absolute path that a file written to `path` will appear under.

    With `overwrite` a symbolic link is followed and the file that it leads to is replaced, as
    `cp` does: the link stays. Raises `AlreadyExists`, `AccessDenied`, `NotFound`, `BadArgument`.
    """
    text = file_name(path)
    if text.endswith("/"):
        raise BadArgument(
            text, expected="the name of a file", got="the name of a folder", remedy="Add a name."
        )
    with mapped(text):
        target = Path.cwd() / text
        if overwrite and target.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                target.stat()  # a circle of links raises here, in a way that is mapped
            target = target.resolve()
    require_parent(target)
    refuse_existing(target, text, overwrite=overwrite)
    return target


def require_parent(target: Path) -> None:
    """Raise `NotFound` if there is no folder to put `target` in."""
    parent = target.parent
    with mapped(parent):
        if parent.is_dir():
            return
        parent.stat()
    raise NotFound(parent, expected="a folder", got="a file", remedy="Choose another folder.")


def refuse_existing(target: Path, name: str, *, overwrite: bool) -> os.stat_result | None:
    """Raise unless `target` is free, or a file that may be replaced; then return its status."""
    with mapped(name):
        try:
            status = target.lstat()
        except FileNotFoundError:
            return None
    if not overwrite or not stat.S_ISREG(status.st_mode):
        # Renaming over /dev/null, which root may, would break the machine.
        raise AlreadyExists(
            name,
            expected="a new file" if not overwrite else "a file to replace",
            got="one that exists" if stat.S_ISREG(status.st_mode) else kind_of(status.st_mode),
            remedy="Choose another name, or ask to overwrite it."
            if stat.S_ISREG(status.st_mode)
            else "Choose another name.",
        )
    if not os.access(target, os.W_OK):
        # A rename needs no permission on the file, but a read-only file was protected on purpose.
        raise AccessDenied(
            name,
            expected="a file that may be overwritten",
            got="one that is read-only",
            remedy="Choose another name, or make it writable (chmod u+w).",
        )
    return status


def hidden_beside(target: Path) -> Path:
    """A fresh hidden name in the folder of `target`."""
    # 50 characters are at most 200 bytes, which leaves room below the limit of 255.
    return target.with_name(f".{target.name[:50]}.{os.urandom(4).hex()}.tmp")


def open_new(target: Path) -> tuple[int, Path | None]:
    """A new file in the folder of `target`: its descriptor, and its name if it needs one."""
    cloexec = getattr(os, "O_CLOEXEC", 0)
    unnamed = getattr(os, "O_TMPFILE", 0)
    if unnamed:
        with contextlib.suppress(OSError):  # the named way below fails again if it must
            descriptor = os.open(target.parent, os.O_RDWR | unnamed | cloexec, 0o666)
            if Path(f"{_PROC}/{descriptor}").exists():
                return descriptor, None
            os.close(descriptor)  # without /proc it could never be given a name
    named = hidden_beside(target)
    return os.open(named, _CREATE | cloexec, 0o666), named


def place(descriptor: int, temporary: Path | None, target: Path, *, overwrite: bool) -> None:
    """Give the file its name. Raises FileExistsError if that is taken and not to be replaced."""
    if temporary is None:
        if not overwrite:
            _link_open_file(descriptor, target)
            return
        temporary = hidden_beside(target)
        _link_open_file(descriptor, temporary)
    try:
        if overwrite:
            temporary.replace(target)
        else:
            _move_exclusively(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _link_open_file(descriptor: int, target: Path) -> None:
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Only with a folder's descriptor does Python call linkat, which follows the link in /proc.
        os.link(f"{_PROC}/{descriptor}", target.name, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _move_exclusively(temporary: Path, target: Path) -> None:
    if kernel.rename(temporary, target, kernel.NOREPLACE):
        return
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _move_taking_turns(temporary, target)
        return
    temporary.unlink()


def _move_taking_turns(temporary: Path, target: Path) -> None:
    # FAT away from Linux and some network mounts have neither call. Our own writers wait for each
    # other; against other programs a gap stays between the two lines, and nothing closes it.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(ImportError, OSError):  # no such locks here either
            import fcntl

            fcntl.flock(folder, fcntl.LOCK_EX)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        temporary.rename(target)
    finally:
        os.close(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where folders can be synced at all."""
    ignored = {errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES, errno.EBADF, errno.EROFS}
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in ignored:
            raise
