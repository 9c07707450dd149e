"""A tensor whose bytes lie in several places: blocks of it, by offsets and sizes.

Distributed writers cut a tensor along one dimension or several, each rank saves its block, and
the whole has its bytes nowhere. `Chunked` is a storage that gathers any range of them: blocks
are found by where they begin, read in few calls and moved by slice assignments. Memory: the
range asked for, and `_ROOM` bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from tensorkeep.dtypes import DType
from tensorkeep.errors import Damaged, Unsupported
from tensorkeep.formats.contents import Storage, TensorRecord, contiguous_stride
from tensorkeep.formats.moving import Side, move
from tensorkeep.stores import Blob

# What one read may be long beyond what is asked for, and how much of it may be gaps.
_ROOM = 4 << 20
_WASTE = 4
_SMALL = 64 << 10

Shape = tuple[int, ...]
Dimension = tuple[int, int, int]  # how many, how far apart in the block, how far apart here


@dataclass(slots=True)
class Chunk:
    """A block of a tensor. `open` gives the tensor that its file holds, when it is wanted."""

    offsets: Shape
    sizes: Shape
    open: Callable[[], TensorRecord]
    record: TensorRecord | None = None


class Chunked(Storage):
    """The bytes of a tensor, contiguous and row-major, out of chunks that tile it.

    The caller has made sure that they do: see `tensorkeep.formats._tiling`.
    """

    __slots__ = ("_ends", "_starts", "chunks", "dtype", "shape")

    def __init__(
        self, key: str, dtype: DType, shape: Shape, chunks: Sequence[Chunk], blob: Blob
    ) -> None:
        super().__init__(key, prod(shape) * dtype.itemsize, blob, offset=0)
        stride = contiguous_stride(shape)

        def first(chunk: Chunk) -> int:
            return _dot(chunk.offsets, stride)

        self.dtype = dtype
        self.shape = shape
        self.chunks = sorted((c for c in chunks if prod(c.sizes)), key=first)
        self._starts = [first(chunk) for chunk in self.chunks]
        # One more than the last element of any chunk up to this one: nothing before reaches it.
        last = [first(c) + _dot([n - 1 for n in c.sizes], stride) + 1 for c in self.chunks]
        self._ends = list(accumulate(last, max))

    def require(self) -> None:
        """Raise `Damaged` unless every chunk is the tensor that it should be, inside its file."""
        for chunk in self.chunks:
            self._opened(chunk).storage.require()

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` of the tensor."""
        size, length = self.dtype.itemsize, buffer.nbytes
        first, last = start // size, -(-(start + length) // size)
        if start % size or length % size:
            whole = bytearray((last - first) * size)
            self._fill(first, last, memoryview(whole))
            buffer[:] = memoryview(whole)[start - first * size :][:length]
        else:
            self._fill(first, last, buffer)

    def _fill(self, first: int, last: int, buffer: memoryview) -> None:
        pieces = list(self._pieces(first, last))
        if all(_straight(dims) for _, _, dims, _ in pieces):
            for storage, near, dims, far in pieces:
                size = dims[0][0] * self.dtype.itemsize
                at = far * self.dtype.itemsize
                storage.read_into(near * self.dtype.itemsize, buffer[at : at + size])
            return
        whole = bytearray(buffer.nbytes)
        for storage, near, dims, far in pieces:
            _Fetch(storage, self.dtype.itemsize, whole).run(near, dims, far)
        buffer[:] = whole

    def _pieces(self, first: int, last: int) -> Iterator[tuple[Storage, int, list[Dimension], int]]:
        """What to read for elements `first` to `last`: where from, in which strides, and to where.

        Positions and strides in elements, of the chunk's storage and of the range.
        """
        here = contiguous_stride(self.shape)
        for box, extents in _boxes(self.shape, first, last):
            begin = _dot(box, here)
            end = begin + _dot([n - 1 for n in extents], here) + 1
            for chunk in self._near(begin, end):
                common = _common(box, extents, chunk)
                if common is None:
                    continue
                offsets, sizes = common
                record = self._opened(chunk)
                inside = [a - b for a, b in zip(offsets, chunk.offsets, strict=True)]
                near = record.offset + _dot(inside, record.stride)
                dims = _joined(sizes, record.stride, here)
                yield record.storage, near, dims, _dot(offsets, here) - first

    def _near(self, begin: int, end: int) -> list[Chunk]:
        """Chunks that may hold some of the elements from `begin` to `end`."""
        low = bisect_left(self._ends, begin + 1)
        return self.chunks[low : bisect_left(self._starts, end)]

    def _opened(self, chunk: Chunk) -> TensorRecord:
        if chunk.record is None:
            record = chunk.open()
            self._check(chunk, record)
            chunk.record = record
        return chunk.record

    def _check(self, chunk: Chunk, record: TensorRecord) -> None:
        record.check(self.key)
        if record.dtype is not self.dtype or record.shape != chunk.sizes:
            raise Damaged(
                record.storage.blob.name,
                expected=f"a chunk of {self.dtype} {list(chunk.sizes)} of {self.key!r}",
                got=f"{record.dtype} {list(record.shape)}",
            )
        if record.conj or record.neg or record.storage.swapped > 1:
            raise Unsupported(
                record.storage.blob.name,
                expected="chunks whose bytes are the values, little-endian",
                got="one with a conjugate or negative bit, or big-endian",
                remedy="Consolidate the checkpoint with torch first (dcp_to_torch_save).",
            )


def _dot(numbers: Sequence[int], stride: Sequence[int]) -> int:
    return sum(n * step for n, step in zip(numbers, stride, strict=True))


def _boxes(shape: Shape, first: int, last: int) -> Iterator[tuple[Shape, Shape]]:
    """Blocks (offsets, sizes) that together are the elements `first` to `last`, in their order.

    At most two for each dimension: a beginning and an end of a row, and whole rows between.
    """
    if first >= last:
        return
    if not shape:
        yield (), ()
        return
    row = prod(shape[1:])
    low, high = -(-first // row), last // row
    if low > high:  # all within one row
        yield from _below(high, _boxes(shape[1:], first - high * row, last - high * row))
        return
    yield from _below(low - 1, _boxes(shape[1:], first - (low - 1) * row, row) if low else ())
    if low < high:
        yield (low, *(0 for _ in shape[1:])), (high - low, *shape[1:])
    yield from _below(high, _boxes(shape[1:], 0, last - high * row))


def _below(
    at: int, boxes: Iterator[tuple[Shape, Shape]] | tuple[()]
) -> Iterator[tuple[Shape, Shape]]:
    for offsets, sizes in boxes:
        yield (at, *offsets), (1, *sizes)


def _common(box: Shape, extents: Shape, chunk: Chunk) -> tuple[Shape, Shape] | None:
    """The block that a box and a chunk have in common, or None."""
    offsets, sizes = [], []
    for a, n, b, m in zip(box, extents, chunk.offsets, chunk.sizes, strict=True):
        begin, end = max(a, b), min(a + n, b + m)
        if begin >= end:
            return None
        offsets.append(begin)
        sizes.append(end - begin)
    return tuple(offsets), tuple(sizes)


def _joined(sizes: Shape, near: Shape, far: Shape) -> list[Dimension]:
    """The dimensions, by stride in the block, largest first; what lies as one counts as one."""
    dims: list[Dimension] = []
    for count, x, y in zip(reversed(sizes), reversed(near), reversed(far), strict=True):
        if count == 1:
            continue
        if dims and (x, y) == (dims[-1][0] * dims[-1][1], dims[-1][0] * dims[-1][2]):
            dims[-1] = (dims[-1][0] * count, *dims[-1][1:])
        else:
            dims.append((count, x, y))
    return sorted(dims, key=lambda dim: -dim[1]) or [(1, 1, 1)]


def _straight(dims: list[Dimension]) -> bool:
    return len(dims) == 1 and dims[0][1:] == (1, 1)


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Reads a block of elements of `size` bytes into its places in `whole`."""

    storage: Storage
    size: int
    whole: bytearray

    def run(self, near: int, dims: list[Dimension], far: int) -> None:
        """`dims` from element `near` of the storage to element `far` of `whole`."""
        if _straight(dims):
            at, end = far * self.size, (far + dims[0][0]) * self.size
            self.storage.read_into(near * self.size, memoryview(self.whole)[at:end])
            return
        span = sum((count - 1) * step for count, step, _ in dims) + 1
        useful = prod(count for count, _, _ in dims)
        if span * self.size <= min(_ROOM, max(_WASTE * useful * self.size, _SMALL)):
            self._spread(near, span, dims, far)
            return
        count, x, y = dims[0]
        # Halves, where there is nothing else to take apart: a long dimension with gaps.
        half = count // 2 if len(dims) == 1 and count > 1 else 1
        for at in range(0, count, half):
            rest = min(half, count - at)
            inner = [(rest, x, y)] if len(dims) == 1 else dims[1:]
            self.run(near + at * x, inner, far + at * y)

    def _spread(self, near: int, span: int, dims: list[Dimension], far: int) -> None:
        read = bytearray(-(-span * self.size // 8) * 8)
        self.storage.read_into(near * self.size, memoryview(read)[: span * self.size])
        unit = min(self.size, 8)
        parts = self.size // unit
        source = Side(read, 0, [x * parts for _, x, _ in dims])
        target = Side(self.whole, far * parts, [y * parts for _, _, y in dims])
        extents = [count for count, _, _ in dims]
        if parts > 1:  # complex128: two units side by side
            source = Side(read, 0, [*source.stride, 1])
            target = Side(self.whole, far * parts, [*target.stride, 1])
            extents.append(parts)
        move(source, target, extents, unit)
