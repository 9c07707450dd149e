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


def _call(name: str, *arguments: object) -> bool:
    function = _function(name)
    if function is None:
        return False
    import ctypes

    while function(*arguments) != 0:
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
    import ctypes

    length = ctypes.c_int64(size)
    return _call("fallocate", ctypes.c_int(descriptor), ctypes.c_int(0), ctypes.c_int64(0), length)


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str], flag: int) -> bool:
    """Rename with `NOREPLACE` (FileExistsError if `target` exists) or `EXCHANGE` (swap both)."""
    here = _AT_FDCWD
    return _call("renameat2", here, os.fsencode(source), here, os.fsencode(target), flag)
