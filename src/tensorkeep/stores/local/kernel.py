"""Two calls of Linux that Python's `os` lacks. Where they are missing, the answer is False.

Sources: fallocate(2), rename(2).
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable

NOREPLACE = 1
EXCHANGE = 2

_AT_FDCWD = -100
# What kernels, file systems and sandboxes answer for "I do not do that".
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.ENODEV}


@functools.cache
def _function(name: str) -> Callable[..., int] | None:
    """The C library's function of that name. On 32 bits off_t differs: nothing there."""
    if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
        return None
    try:
        import ctypes

        found: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (ImportError, OSError, AttributeError):
        return None
    return found


def _call(name: str, *arguments: int | bytes) -> bool:
    function = _function(name)
    if function is None:
        return False
    import ctypes

    # Plain integers would be cut to 32 bits; a wider one than declared does no harm in a register.
    wide = [ctypes.c_int64(each) if isinstance(each, int) else each for each in arguments]
    while function(*wide) != 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def fallocate(descriptor: int, size: int) -> bool:
    """Reserve `size` bytes from the start of a file, which is then that long.

    Not `os.posix_fallocate`: where the file system cannot do it, glibc writes a byte into every
    4 KiB block instead, which on a network mount sends the whole file twice.
    """
    return _call("fallocate", descriptor, 0, 0, size)


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str], flag: int) -> bool:
    """Rename with `NOREPLACE` (FileExistsError if `target` exists) or `EXCHANGE` (swap both)."""
    old, new = os.fsencode(source), os.fsencode(target)
    return _call("renameat2", _AT_FDCWD, old, _AT_FDCWD, new, flag)
