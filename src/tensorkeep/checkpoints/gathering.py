"""Views of a storage, gathered into contiguous bytes in bounded memory, without torch or numpy.

A checkpoint may hold a tensor as a view: transposed, sliced with steps, expanded, overlapping. Its
elements are read in *boxes*, each one run of the result, by few large reads: each spans the
dimensions of small stride, gaps included, as long as that costs less than more reads. From there
slice assignments move the elements into their places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from tensorkeep.checkpoints import _boxes
from tensorkeep.errors import BadArgument, Damaged
from tensorkeep.formats.moving import Side, move, walk

ReadInto = Callable[[int, memoryview], None]

# The size of a box, in blocks: the larger, the longer the reads of a transposed view.
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

    def cut(self, start: int, stop: int) -> Iterator[Strided]:
        """The views that make up elements `start` to `stop`, counted row-major, in order.

        At most two for each dimension and one: the rest of a row, whole rows, the begin of one.
        """
        if (start, stop) == (0, self.numel) or start >= stop or not self.shape:
            if start < stop:
                yield self
            return
        inner = prod(self.shape[1:])
        first, skipped = divmod(start, inner)
        last, begun = divmod(stop, inner)
        if first == last:
            yield from self._row(first).cut(skipped, begun)
            return
        if skipped:
            yield from self._row(first).cut(skipped, inner)
            first += 1
        if last > first:
            offset = self.offset + first * self.stride[0]
            yield Strided(self.itemsize, (last - first, *self.shape[1:]), self.stride, offset)
        if begun:
            yield from self._row(last).cut(0, begun)

    def _row(self, row: int) -> Strided:
        offset = self.offset + row * self.stride[0]
        return Strided(self.itemsize, self.shape[1:], self.stride[1:], offset)

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

    Memory: up to 9 blocks; one where the view is contiguous. Bytes asked for: at most 8 times the
    larger of the result and the stretch of storage that the view spans, most often once; more only
    where elements lie less than a page apart, so that the pages would be read anyway. The
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
    unit, scratch = view.unit, max(block // view.unit, 1)
    plan = _boxes.choose(view, _ROOM * scratch, scratch)
    room, buffer = bytearray(), bytearray()
    stride = view.stride
    for offset, _, extents in _boxes.cut(view.shape, stride, stride, plan.axis, plan.rows):
        way = _boxes.box(view, extents, plan.inner, scratch)
        assert way is not None
        size, start = prod(extents) * unit, position + offset * unit
        room = _at_least(room, size)
        if way.direct:
            _read(read_into, start, way, way.extents, unit, room)
        else:
            buffer = _by_parts(read_into, start, way, unit, room, buffer)
        for at in range(0, size, block):
            yield memoryview(room)[at : min(at + block, size)]


def _by_parts(
    read_into: ReadInto,
    position: int,
    way: _boxes.Box,
    unit: int,
    room: bytearray,
    buffer: bytearray,
) -> bytearray:
    """Read a box by way of `buffer`, which is returned, larger if need be."""
    parts = _boxes.cut(way.extents, way.there, way.out, way.axis, way.rows)
    for there, here, part in parts:
        near = way.near(part)
        buffer = _at_least(buffer, way.length(part) * unit)
        _read(read_into, position + there * unit, way, part, unit, buffer)
        move(Side(buffer, 0, near), Side(room, here, way.out), part, unit)
    return buffer


def _read(
    read_into: ReadInto,
    position: int,
    way: _boxes.Box,
    part: tuple[int, ...],
    unit: int,
    buffer: bytearray,
) -> None:
    whole, length = memoryview(buffer), way.run(part) * unit
    looped = slice(way.spanned)
    for there, here in walk(part[looped], way.there[looped], way.near(part)[looped]):
        read_into(position + there * unit, whole[here * unit : here * unit + length])


def _at_least(buffer: bytearray, size: int) -> bytearray:
    """The same buffer, or another: the caller may still hold a piece of it."""
    return buffer if len(buffer) >= size else bytearray(-(-size // 8) * 8)
