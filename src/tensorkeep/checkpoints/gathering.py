"""Views of a storage, gathered into contiguous bytes in bounded memory, without torch or numpy.

A checkpoint may hold a tensor as a view: transposed, sliced with steps, expanded, overlapping. Its
elements are read in *boxes*: whole trailing dimensions and some rows of one, so that what a box
holds is one run of the result. A box is read by few large reads (each spans the dimensions of
small stride, gaps included, as long as that costs less than more reads), and the elements are
moved into place by slice assignments along its cheapest dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from tensorkeep.checkpoints import _boxes
from tensorkeep.checkpoints._moving import move
from tensorkeep.errors import BadArgument, Damaged

ReadInto = Callable[[int, memoryview], None]

# Memory for a box, in blocks: the larger, the longer the reads of a transposed view.
_ROOM = 8


@dataclass(frozen=True, slots=True)
class Strided:
    """A view of a storage as torch describes it.

    `itemsize` in bytes (1, 2, 4, 8 or 16); `shape`, `stride` and `offset` in elements. Strides
    may be 0 (expanded) and views may overlap themselves. Raises `Damaged` for what no torch
    tensor has: negative numbers, a stride missing; `BadArgument` for another itemsize.
    """

    itemsize: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        if self.itemsize not in (1, 2, 4, 8, 16):
            raise BadArgument("a view", expected="itemsize 1, 2, 4, 8 or 16", got=self.itemsize)
        odd = self.offset < 0 or min(self.shape, default=0) < 0 or min(self.stride, default=0) < 0
        if odd or len(self.shape) != len(self.stride):
            raise Damaged(
                "a view of a storage",
                expected="a size and a stride for each dimension and an offset, none negative",
                got=f"shape {self.shape}, stride {self.stride}, offset {self.offset}"[:200],
            )

    @property
    def numel(self) -> int:
        """Elements of the view; an expanded one may have more than its storage."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the gathered result."""
        return self.numel * self.itemsize

    def is_contiguous(self) -> bool:
        """Whether the elements lie one after the other, row-major, as torch means it.

        The strides of dimensions of size 1, and of an empty view, say nothing.
        """
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and stride != step:
                return not self.numel
            step *= size
        return True

    def span(self) -> tuple[int, int]:
        """First byte touched within the storage, and one more than the last; (0, 0) if empty."""
        if not self.numel:
            return 0, 0
        last = self.offset
        for size, stride in zip(self.shape, self.stride, strict=True):
            last += (size - 1) * stride
        return self.offset * self.itemsize, (last + 1) * self.itemsize


def gather(
    read_into: ReadInto, view: Strided, start: int, block_bytes: int = 1 << 20
) -> Iterator[memoryview]:
    """The bytes of `view`, row-major and contiguous, piece by piece.

    `read_into(position, buffer)` fills a buffer (format "B"); `start` is the position of the
    storage's first byte. Pieces are whole elements, consecutive, at most `block_bytes` long (one
    element at least); a piece may be changed by the caller and is valid until the next step.

    Memory: up to 9 blocks; one where the view is contiguous. Bytes asked for: at most 4 times the
    larger of the result and the stretch of storage that the view spans, most often once. The
    caller has checked `view.span()`, and that a result of `view.nbytes` is wanted: an expanded
    view of few bytes may have an enormous one. Raises what `read_into` raises.
    """
    position = start + view.offset * view.itemsize
    block = max(block_bytes - block_bytes % view.itemsize, view.itemsize)
    if view.is_contiguous():
        return _straight(read_into, position, view.nbytes, block)
    return _by_boxes(read_into, position, view, block)


def _straight(read_into: ReadInto, position: int, nbytes: int, block: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(nbytes, block)))
    for at in range(0, nbytes, block):
        piece = buffer[: nbytes - at]
        read_into(position + at, piece)
        yield piece


def _by_boxes(
    read_into: ReadInto, position: int, strided: Strided, block: int
) -> Iterator[memoryview]:
    view = _boxes.simplify(strided.itemsize, strided.shape, strided.stride)
    plan = _boxes.choose(view, _ROOM * block)
    room, out = bytearray(), bytearray()
    for offset, extents in _boxes.cut(view.shape, view.stride, plan.axis, plan.rows):
        box = _boxes.layout(view, extents, plan.inner)
        room = _at_least(room, box.length * view.unit)
        _fill(read_into, position + offset * view.unit, view, extents, box, room)
        if box.direct:
            yield from _slices(memoryview(room), prod(extents) * view.unit, block)
            continue
        axis, rows = _boxes.pieces(view, extents, block // view.unit)
        for at, part in _boxes.cut(extents, box.stride, axis, rows):
            size = prod(part) * view.unit
            out = _at_least(out, size)
            move(room, at, box.stride, out, part, view.unit)
            yield memoryview(out)[:size]


def _at_least(buffer: bytearray, size: int) -> bytearray:
    """The same buffer, or a larger one: the caller may still hold a piece of the last."""
    return buffer if len(buffer) >= size else bytearray(-(-size // 8) * 8)


def _slices(whole: memoryview, length: int, size: int) -> Iterator[memoryview]:
    for at in range(0, length, size):
        yield whole[at : min(at + size, length)]


def _fill(
    read_into: ReadInto,
    position: int,
    view: _boxes.View,
    extents: tuple[int, ...],
    box: _boxes.Layout,
    room: bytearray,
) -> None:
    """Read a box: one read for each combination of the dimensions that no read spans."""
    whole, length = memoryview(room), box.run * view.unit
    counts = [extents[at] for at in box.looped]
    there = [view.stride[at] * view.unit for at in box.looped]
    here = [box.stride[at] * view.unit for at in box.looped]
    for far, near in _boxes.walk(counts, there, here):
        read_into(position + far, whole[near : near + length])
