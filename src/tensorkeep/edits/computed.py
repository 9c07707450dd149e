"""Arrays whose elements are computed: means, low-rank updates, rows scaled. In float32 or better.

Accumulated in float64 and rounded once to the dtype of the result, so that the order of the
sources and the size of the pieces change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from tensorkeep.dtypes import DType
from tensorkeep.edits.arrays import Array, encoded, numbers
from tensorkeep.errors import BadArgument, Unwritable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[Any]

_PIECE = 1 << 18


def require_floats(array: Array, what: str) -> None:
    """Raise `Unwritable` unless `array` holds real floating point numbers."""
    if not array.dtype.is_floating:
        raise Unwritable(
            what,
            expected="floating point elements",
            got=array.dtype,
            remedy="Leave out what are no floats with a narrower pattern, or cast it first.",
        )


def require_shape(array: Array, shape: tuple[int, ...], what: str) -> None:
    """Raise `BadArgument` unless `array` has this shape."""
    if array.shape != shape:
        raise BadArgument(
            what,
            expected=f"shape {list(shape)}",
            got=list(array.shape),
            remedy="tensorkeep inspect --tensors shows the shapes.",
        )


@dataclass(frozen=True)
class Sum(Array):
    """The sum of `weights` times `parts`, floats of one shape, in the dtype of the first."""

    parts: tuple[Array, ...]
    weights: tuple[float, ...]
    computes = True

    def __post_init__(self) -> None:
        first = self.parts[0]
        for part in self.parts:
            require_floats(part, "a weighted sum")
            require_shape(part, first.shape, "a weighted sum")
        self._be(first.dtype, first.shape, *self.parts)

    def _codes(self, start: int, stop: int) -> Numbers:
        import numpy as np

        total = np.zeros(stop - start, "<f8")
        with np.errstate(all="ignore"):
            for part, weight in zip(self.parts, self.weights, strict=True):
                total += numbers(part, start, stop).astype("<f8") * weight
        return self.rounded(total, start)


@dataclass(frozen=True)
class LowRank(Array):
    """`of` + `scale` * `up` @ `down`: a matrix (rows, columns) and two of rank r beside it.

    More dimensions of `of` count as columns. `up`: (rows, r), `down`: (r, columns); `down` is
    held in float32 while the result is written.
    """

    of: Array
    up: Array
    down: Array
    scale: float
    computes = True

    def __post_init__(self) -> None:
        rows, rank = self.of.shape[0], self.down.shape[0]
        columns = prod(self.of.shape[1:])
        for array in (self.of, self.up, self.down):
            require_floats(array, "a low-rank update")
        if prod(self.up.shape) != rows * rank or prod(self.down.shape) != rank * columns:
            raise BadArgument(
                "a low-rank update",
                expected=f"matrices that make {list(self.of.shape)}",
                got=f"{list(self.up.shape)} and {list(self.down.shape)}",
                remedy="Weights that are stored transposed (GPT-2's Conv1D) need fan_in_fan_out.",
            )
        self._be(self.of.dtype, self.of.shape, self.of, self.up, self.down)

    @cached_property
    def _down(self) -> Numbers:
        return numbers(self.down, 0, self.down.numel).astype("<f4").reshape(self.down.shape[0], -1)

    def _codes(self, start: int, stop: int) -> Numbers:
        import numpy as np

        columns, rank = prod(self.of.shape[1:]), self.down.shape[0]
        first, last = start // columns, (stop - 1) // columns + 1
        up = numbers(self.up, first * rank, last * rank).astype("<f4").reshape(-1, rank)
        with np.errstate(all="ignore"):
            update = (up @ self._down).reshape(-1)[start - first * columns : stop - first * columns]
            total = numbers(self.of, start, stop).astype("<f8") + update.astype("<f8") * self.scale
        return self.rounded(total, start)


def norms(of: Array, dim: int | None) -> Numbers:
    """The 2-norm of each slice of `of` along `dim` (None: of all of it), float64, one dimension.

    One pass, in pieces.
    """
    import numpy as np

    size, inner = (of.shape[dim], prod(of.shape[dim + 1 :])) if dim is not None else (1, of.numel)
    squares = np.zeros(size, "<f8")
    for at in range(0, of.numel, _PIECE):
        found = numbers(of, at, min(at + _PIECE, of.numel)).astype("<f8")
        where = np.arange(at, at + found.size) // max(inner, 1) % size
        squares += np.bincount(where, found * found, size)
    return np.sqrt(squares)


@dataclass(frozen=True)
class Normed(Array):
    """`direction` with each slice along `dim` scaled to the norm that `magnitude` says for it.

    What `torch.nn.utils.weight_norm` computes: g * v / ||v||. `dim` None: one norm for all.
    """

    direction: Array
    magnitude: Array
    dim: int | None
    computes = True

    def __post_init__(self) -> None:
        size = self.direction.shape[self.dim] if self.dim is not None else 1
        for array in (self.direction, self.magnitude):
            require_floats(array, "a weight norm")
        if self.magnitude.numel != size:
            raise BadArgument(
                "a weight norm",
                expected=f"{size} norms",
                got=self.magnitude.numel,
                remedy="Fold weights only that torch.nn.utils.weight_norm made.",
            )
        self._be(self.direction.dtype, self.direction.shape, self.direction, self.magnitude)

    @cached_property
    def _factors(self) -> Numbers:
        import numpy as np

        with np.errstate(all="ignore"):
            wanted = numbers(self.magnitude, 0, self.magnitude.numel).astype("<f8")
            factors: Numbers = wanted / norms(self.direction, self.dim)
        return factors

    def _codes(self, start: int, stop: int) -> Numbers:
        import numpy as np

        found = numbers(self.direction, start, stop).astype("<f8")
        if self.dim is None:
            return self.rounded(found * self._factors[0], start)
        inner = prod(self.shape[self.dim + 1 :])
        where = np.arange(start, stop) // inner % self.shape[self.dim]
        with np.errstate(all="ignore"):
            return self.rounded(found * self._factors[where], start)


@dataclass(frozen=True)
class Computed(Array):
    """What `compute` makes of the numbers of `of` (float64, its shape): made whole, in memory.

    For tensors that are small whatever the model: position embeddings, first convolutions.
    `size` is the shape of the result, in the dtype of `of`.
    """

    of: Array
    size: tuple[int, ...]
    compute: Callable[[Numbers], Numbers]
    splits = False
    computes = True

    def __post_init__(self) -> None:
        require_floats(self.of, "values to compute with")
        self._be(self.of.dtype, self.size, self.of)

    def _codes(self, start: int, stop: int) -> Numbers:
        whole = numbers(self.of, 0, self.of.numel).astype("<f8").reshape(self.of.shape)
        return self.rounded(self.compute(whole).reshape(-1)[start:stop], start)


def one_code(value: float, dtype: DType) -> int:
    """The bits of one element of `dtype` that holds `value`, as an unsigned integer."""
    import numpy as np

    return int.from_bytes(encoded(np.array([value], "<f8"), dtype).tobytes(), "little")
