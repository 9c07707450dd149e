"""Views of a storage, gathered into contiguous bytes in bounded memory, without torch or numpy.

A checkpoint may hold a tensor as a view: transposed, sliced with steps, expanded, overlapping. Its
elements are read in *boxes*: whole trailing dimensions and some rows of one, so that what a box
holds is one run of the result. A box is read by few large reads (each spans the dimensions of
small stride, gaps included, as long as that costs less than more reads), and the elements are
moved into place by slice assignments along its cheapest dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from tensorkeep.checkpoints import _boxes
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

    Memory: up to 9 blocks, one where the view is contiguous. Bytes asked for: up to 4 times the
    larger of the result and the stretch of storage that the view spans, most often once. The
    caller has checked `view.span()`, and that a result of `view.nbytes` is wanted: an expanded
    view of few bytes may have an enormous one. Raises what `read_into` raises.
    """
    block_bytes = max(block_bytes, view.itemsize)
    position = start + view.offset * view.itemsize
    if view.is_contiguous():
        yield from _straight(read_into, position, view, block_bytes)
        return
    unit, dims = _boxes.simplify(view.itemsize, view.shape, view.stride)
    grain = max(view.itemsize // unit, 1)
    plan = _boxes.choose(dims, unit, grain, _ROOM * block_bytes)
    yield from _by_boxes(read_into, position, plan, block_bytes)


def _straight(
    read_into: ReadInto, position: int, view: Strided, block_bytes: int
) -> Iterator[memoryview]:
    size = min(view.nbytes, block_bytes - block_bytes % view.itemsize)
    buffer = memoryview(bytearray(size))
    for at in range(0, view.nbytes, max(size, 1)):
        piece = buffer[: min(size, view.nbytes - at)]
        read_into(position + at, piece)
        yield piece


def _by_boxes(
    read_into: ReadInto, position: int, plan: _boxes.Plan, block_bytes: int
) -> Iterator[memoryview]:
    unit = plan.unit
    room = bytearray(plan.layout(plan.largest).length * unit)
    limit = block_bytes // unit
    out = bytearray(0)
    for offset, extents in _boxes.cut(plan.extents, plan.strides, plan.axis, plan.rows):
        layout = plan.layout(extents)
        _fill(read_into, position + offset * unit, plan, layout, room)
        if layout.direct:
            yield from _slices(room, prod(extents) * unit, block_bytes - block_bytes % plan.item)
            continue
        axis, rows = _boxes.pieces(extents, limit, plan.grain)
        for at, piece in _boxes.cut(extents, layout.strides, axis, rows):
            size = prod(piece) * unit
            out = out if len(out) >= size else bytearray(size)
            _permute(room, at, layout.strides, out, piece, unit)
            yield memoryview(out)[:size]


def _slices(room: bytearray, length: int, size: int) -> Iterator[memoryview]:
    whole = memoryview(room)
    for at in range(0, length, size):
        yield whole[at : min(at + size, length)]


def _fill(
    read_into: ReadInto, position: int, plan: _boxes.Plan, layout: _boxes.Layout, room: bytearray
) -> None:
    """Read a box: one read for each combination of the dimensions that no read spans."""
    unit, length = plan.unit, layout.run * plan.unit
    whole = memoryview(room)
    counts = [layout.extents[dim] for dim in layout.looped]
    there = [plan.strides[dim] * unit for dim in layout.looped]
    here = [layout.strides[dim] * unit for dim in layout.looped]
    for far, near in _boxes.walk(counts, there, here):
        read_into(position + far, whole[near : near + length])


def _permute(
    room: bytearray, at: int, strides: Sequence[int], out: bytearray, extents: Sequence[int], unit: int
) -> None:
    """Move the elements of a piece from where the box has them to where the result wants them."""
    steps = _boxes.merge(extents, strides)
    best = _boxes.vector(steps, unit)
    count, near, far = steps.pop(best)
    pairs = _boxes.walk(*zip(*steps, strict=True)) if steps else iter([(0, 0)])
    if near == far == 1 or unit > 2:
        _move_items(room, out, at, (count, near, far), pairs, unit)
    else:
        _move_bytes(room, out, at, (count, near, far), pairs, unit)
