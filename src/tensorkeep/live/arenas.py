"""Private memory for many tensors: large anonymous mappings, of huge pages where there are any.

Most of the time of a load is the first touch of fresh memory, and a page of 2 MiB is touched once
where 4 KiB pages are 512 times. A mapping goes back to the system when the last tensor in it dies:
nobody closes it, since torch would not notice.
"""

from __future__ import annotations

import ctypes
import mmap

from tensorkeep.errors import OutOfMemory

LARGEST = 256 << 20
HUGE_PAGE = 2 << 20


class Arena:
    """`size` bytes of zeros that begin at byte `base` of `memory`, on a huge page if they fill one.

    Raises `OutOfMemory`.
    """

    __slots__ = ("base", "memory", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        spare = HUGE_PAGE if size >= HUGE_PAGE else 0
        self.memory = _anonymous(size + spare)
        self.base = 0
        if spare:
            self.base = -_address(self.memory) % HUGE_PAGE
            _advise_huge(self.memory)

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop` of the arena, to be filled."""
        return memoryview(self.memory)[self.base + start : self.base + stop]


def _anonymous(size: int) -> mmap.mmap:
    # Python's default is memory shared with children, which has no huge pages, and in which a
    # child's change would be seen here. Windows has neither name.
    private = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    try:
        return mmap.mmap(-1, max(size, 1), **({"flags": private} if private else {}))
    except OSError as error:
        raise OutOfMemory(
            "memory for tensors", expected=f"{size} bytes", got=error.strerror or str(error)
        ) from error


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _advise_huge(memory: mmap.mmap) -> None:
    # A hint: kernels may be built without huge pages.
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            return
