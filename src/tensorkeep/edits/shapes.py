"""Arrays whose elements are those of others, in other places: slices, joins, other shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.edits.arrays import Array, Stored, empty
from tensorkeep.errors import BadArgument
from tensorkeep.formats.contents import TensorRecord, contiguous_stride

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[Any]

# How many times what is wanted may be read along with it, where the gaps are many.
_MOST_GAPS = 8


def require_dim(shape: tuple[int, ...], dim: int) -> int:
    """`dim` counted from the front. Raises `BadArgument` if `shape` has no such dimension."""
    if not -len(shape) <= dim < len(shape):
        raise BadArgument(
            "a dimension",
            expected=f"one of the {len(shape)} of shape {list(shape)}",
            got=dim,
            remedy="tensorkeep inspect --tensors shows the shapes.",
        )
    return dim % len(shape)


@dataclass(frozen=True)
class Sliced(Array):
    """`of[..., begin:end, ...]` along `dim`; `begin` and `end` lie inside, counted from 0."""

    of: Array
    dim: int
    begin: int
    end: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", require_dim(self.of.shape, self.dim))
        size = self.of.shape[self.dim]
        if not 0 <= self.begin <= self.end <= size:
            raise BadArgument(
                "a slice",
                expected=f"positions from 0 to {size} along dimension {self.dim}",
                got=f"{self.begin}:{self.end}",
                remedy="tensorkeep inspect --tensors shows the shapes.",
            )
        shape = self.of.shape
        own = (*shape[: self.dim], self.end - self.begin, *shape[self.dim + 1 :])
        self._be(self.of.dtype, own, self.of)

    def _codes(self, start: int, stop: int) -> Codes:
        inner = prod(self.shape[self.dim + 1 :])
        run, whole = (self.end - self.begin) * inner, self.of.shape[self.dim] * inner
        first, last = start // run, (stop - 1) // run + 1
        skip = self.begin * inner
        if run * _MOST_GAPS < whole:
            return self._by_rows(start, stop, run, whole)
        # All rows that it touches are read in one go: a run may be a few elements.
        begin, end = first * whole + skip, (last - 1) * whole + skip + run
        found = empty(self.dtype, (last - first) * whole)
        found[skip : skip + end - begin] = self.of.codes(begin, end)
        rows = found.reshape(last - first, whole)[:, skip : skip + run].reshape(-1)
        return rows[start - first * run : stop - first * run]

    def _by_rows(self, start: int, stop: int, run: int, whole: int) -> Codes:
        """Row by row: what lies between would be more than is wanted, and may be the tensor."""
        result = empty(self.dtype, stop - start)
        skip = self.begin * (run // (self.end - self.begin))
        for row in range(start // run, (stop - 1) // run + 1):
            begin, end = max(start, row * run), min(stop, (row + 1) * run)
            shift = row * (whole - run) + skip
            result[begin - start : end - start] = self.of.codes(begin + shift, end + shift)
        return result


@dataclass(frozen=True)
class Joined(Array):
    """`parts`, one after the other along `dim`; the other sizes and the dtype are the same."""

    parts: tuple[Array, ...]
    dim: int

    def __post_init__(self) -> None:
        first = self.parts[0]
        object.__setattr__(self, "dim", require_dim(first.shape, self.dim))
        for part in self.parts[1:]:
            if part.dtype is not first.dtype or self._others(part) != self._others(first):
                raise BadArgument(
                    f"a join along dimension {self.dim}",
                    expected=f"{first.dtype} {list(first.shape)}, or another size there",
                    got=f"{part.dtype} {list(part.shape)}",
                    remedy="tensorkeep inspect --tensors shows the shapes.",
                )
        size = sum(part.shape[self.dim] for part in self.parts)
        own = (*first.shape[: self.dim], size, *first.shape[self.dim + 1 :])
        self._be(first.dtype, own, *self.parts)

    def _others(self, part: Array) -> tuple[int, ...]:
        return (*part.shape[: self.dim], *part.shape[self.dim + 1 :], len(part.shape))

    def _codes(self, start: int, stop: int) -> Codes:
        inner = prod(self.shape[self.dim + 1 :])
        whole = self.shape[self.dim] * inner
        first, last = start // whole, (stop - 1) // whole + 1
        if last - first == 1:
            return self._row(first, start - first * whole, stop - first * whole)
        rows = empty(self.dtype, (last - first) * whole).reshape(last - first, whole)
        at = 0
        for part in self.parts:
            run = part.shape[self.dim] * inner
            found = part.codes(first * run, last * run)
            rows[:, at : at + run] = found.reshape(last - first, run)
            at += run
        return rows.reshape(-1)[start - first * whole : stop - first * whole]

    def _row(self, row: int, start: int, stop: int) -> Codes:
        """A run inside one row: of each part only what lies in it. A row may be the tensor."""
        result = empty(self.dtype, stop - start)
        inner, at = prod(self.shape[self.dim + 1 :]), 0
        for part in self.parts:
            run = part.shape[self.dim] * inner
            begin, end = max(start, at), min(stop, at + run)
            if begin < end:
                inside = row * run - at
                result[begin - start : end - start] = part.codes(inside + begin, inside + end)
            at += run
        return result


@dataclass(frozen=True)
class Reshaped(Array):
    """The same elements in the same order under another shape."""

    of: Array
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if prod(self.size) != self.of.numel or min(self.size, default=0) < 0:
            raise BadArgument(
                "a reshape",
                expected=f"a shape of {self.of.numel} elements, as {list(self.of.shape)} has",
                got=list(self.size),
                remedy="Let one size be -1: it follows from the others.",
            )
        self._be(self.of.dtype, self.size, self.of)

    def _codes(self, start: int, stop: int) -> Codes:
        return self.of.codes(start, stop)


@dataclass(frozen=True)
class Permuted(Array):
    """Elements computed here, in another order: they are held whole while they are written."""

    of: Array
    dims: tuple[int, ...]
    splits = False

    def __post_init__(self) -> None:
        self._be(self.of.dtype, tuple(self.of.shape[dim] for dim in self.dims), self.of)

    def _codes(self, start: int, stop: int) -> Codes:
        whole = self.of.codes(0, self.of.numel).reshape(self.of.shape)
        return whole.transpose(self.dims).reshape(-1)[start:stop]


def sliced(of: Array, dim: int, begin: int, end: int) -> Array:
    """`of[..., begin:end, ...]` along `dim`. A stored tensor stays one. Raises `BadArgument`."""
    cut = Sliced(of, dim, begin, end)
    if not isinstance(of, Stored):
        return cut
    old = of.ref.record
    return _view(of.ref, cut.shape, old.stride, old.offset + begin * old.stride[cut.dim])


def reshaped(of: Array, shape: tuple[int, ...]) -> Array:
    """`of` under another shape of as many elements. Raises `BadArgument`."""
    made = Reshaped(of, shape)
    if isinstance(of, Stored) and of.ref.strided.is_contiguous():
        return _view(of.ref, shape, contiguous_stride(shape), of.ref.record.offset)
    return made


def permuted(of: Array, dims: tuple[int, ...]) -> Array:
    """`of` with its dimensions in another order, as `torch.permute` gives it.

    A stored tensor stays one, read through other strides. Raises `BadArgument`.
    """
    if sorted(dims) != list(range(len(of.shape))):
        raise BadArgument(
            "a permutation",
            expected=f"each of 0 to {len(of.shape) - 1} once",
            got=list(dims),
            remedy="Name each dimension once.",
        )
    if not isinstance(of, Stored):
        return Permuted(of, dims)
    old = of.ref.record
    shape, stride = tuple(old.shape[d] for d in dims), tuple(old.stride[d] for d in dims)
    return _view(of.ref, shape, stride, old.offset)


def _view(ref: TensorRef, shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> Stored:
    old = ref.record
    record = TensorRecord(old.dtype, shape, stride, offset, old.storage)
    record.conj, record.neg, record.problem = old.conj, old.neg, old.problem
    return Stored(TensorRef(ref.name, record, ref.section))
