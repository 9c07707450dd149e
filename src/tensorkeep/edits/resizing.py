"""Tensors that get another size: vocabularies, positions, the channels of a first convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil, isqrt, prod
from typing import TYPE_CHECKING, Any, ClassVar

from tensorkeep.edits import patterns
from tensorkeep.edits.arrays import Array, Filled, numbers
from tensorkeep.edits.computed import Computed, require_floats
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.shapes import Joined, require_dim, sliced
from tensorkeep.errors import BadArgument, TensorkeepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[Any]

_LARGEST = 1 << 40
_PIECE = 1 << 18


def chosen(inventory: Inventory, pattern: str, verb: str) -> list[str]:
    """The names that `pattern` matches; a note where it matches none."""
    found = [name for name in inventory if patterns.compiled(pattern).matches(name)]
    if not found:
        inventory.notes.append(f"no name matches {pattern!r} to {verb}")
    return found


def change(
    inventory: Inventory, pattern: str, verb: str, changed: Callable[[Array, str], Array]
) -> None:
    """Put what `changed` makes of each tensor (and its name) that `pattern` matches in its place.

    Its errors are raised with the name of the tensor.
    """
    for name in chosen(inventory, pattern, verb):
        try:
            inventory.put(name, changed(inventory[name], name))
        except TensorkeepError as error:
            raise type(error)(
                error.subject,
                expected=error.expected,
                got=error.got,
                where=error.where or name,
                remedy=error.remedy,
            ) from error


def _require_size(size: int, what: str) -> None:
    if not 0 < size <= _LARGEST:
        raise BadArgument(
            what,
            expected=f"a size from 1 to {_LARGEST}",
            got=size,
            remedy="Give the size that the model has.",
        )


@dataclass(frozen=True)
class Resize:
    """Cut or lengthen `dim` of what `pattern` matches to `size`: a vocabulary, a head.

    New rows are `fill`: "zeros", "mean" (of the rows that are there) or "repeat" (from the first
    on). What is cut is gone.
    """

    pattern: str
    size: int
    dim: int = 0
    fill: str = "zeros"
    op: ClassVar[str] = "resize"

    def __post_init__(self) -> None:
        _require_size(self.size, "resize")
        if self.fill not in ("zeros", "mean", "repeat"):
            raise BadArgument(
                "resize",
                expected="fill zeros, mean or repeat",
                got=repr(self.fill),
                remedy="Say one of them, or leave it out for zeros.",
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for a dimension that is not there."""
        change(inventory, self.pattern, "resize", self._resized)

    def _resized(self, array: Array, name: str) -> Array:
        dim = require_dim(array.shape, self.dim)
        missing = self.size - array.shape[dim]
        if missing <= 0:
            return sliced(array, dim, 0, self.size)
        if not array.shape[dim] and self.fill != "zeros":
            raise BadArgument(
                f"resize of {name!r}",
                expected="rows to fill from",
                got="none",
                remedy="Fill with zeros.",
            )
        shape = (*array.shape[:dim], missing, *array.shape[dim + 1 :])
        if self.fill == "zeros":
            return Joined((array, Filled(array.dtype, shape)), dim)
        if self.fill == "mean":
            return Joined((array, MeanRows(array, dim, missing)), dim)
        times, rest = divmod(self.size, array.shape[dim])
        return Joined((*[array] * times, sliced(array, dim, 0, rest)), dim)

    def inverse(self) -> None:
        """None: the size before is not kept."""


@dataclass(frozen=True)
class MeanRows(Array):
    """`count` times the mean of `of` along `dim`, in that dimension."""

    of: Array
    dim: int
    count: int
    computes = True

    def __post_init__(self) -> None:
        require_floats(self.of, "a mean")
        shape = self.of.shape
        self._be(self.of.dtype, (*shape[: self.dim], self.count, *shape[self.dim + 1 :]), self.of)

    @cached_property
    def _means(self) -> Numbers:
        """The means, float64, of shape (what lies before the dimension, what lies behind it)."""
        import numpy as np

        size, inner = self.of.shape[self.dim], prod(self.of.shape[self.dim + 1 :])
        means = np.zeros((prod(self.of.shape[: self.dim]), inner))
        step = max(_PIECE // max(inner, 1), 1)
        for outer in range(len(means)):
            for row in range(0, size, step):
                rows = min(step, size - row)
                at = (outer * size + row) * inner
                found = numbers(self.of, at, at + rows * inner).reshape(rows, inner)
                means[outer] += found.sum(0, dtype="<f8")
        return means / size

    def _codes(self, start: int, stop: int) -> Numbers:
        import numpy as np

        inner = self._means.shape[1]
        at = np.arange(start, stop)
        return self.rounded(self._means[at // (self.count * inner), at % inner], start)


@dataclass(frozen=True)
class ResizePositions:
    """Position embeddings for another grid: resampled bicubically, antialiased, in float64.

    `grid`: the new grid, (height, width) of patches or (length,). `old`: the grid before; by
    default a square, or the length. `prefix`: tokens in front that are no positions (a class
    token); by default what is left over beside the largest square, at most 2. Tensors of shape
    (positions, channels) or (1, positions, channels).
    """

    pattern: str
    grid: tuple[int, ...]
    old: tuple[int, ...] = ()
    prefix: int = -1
    op: ClassVar[str] = "resize-positions"

    def __post_init__(self) -> None:
        for size in self.grid + self.old:
            _require_size(size, "resize-positions")
        if len(self.grid) not in (1, 2) or len(self.old) not in (0, len(self.grid)):
            raise BadArgument(
                "resize-positions",
                expected="a grid of one or two sizes, the old one of as many",
                got=f"grid {list(self.grid)}, old {list(self.old)}",
                remedy="Give height and width, or one length, for both.",
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` where the positions are not such a grid."""
        for name in chosen(inventory, self.pattern, "resize"):
            inventory.put(name, self._resized(inventory[name], name))

    def _resized(self, array: Array, name: str) -> Array:
        if len(array.shape) not in (2, 3) or array.shape[:-2] not in ((), (1,)):
            raise BadArgument(
                f"positions {name!r}",
                expected="shape (positions, channels) or (1, positions, channels)",
                got=list(array.shape),
                remedy="Match fewer tensors with pattern.",
            )
        prefix, old = self._grids(array.shape[-2], name)
        size = (*array.shape[:-2], prefix + prod(self.grid), array.shape[-1])
        return Computed(array, size, partial(_resampled, prefix=prefix, old=old, new=self.grid))

    def _grids(self, count: int, name: str) -> tuple[int, tuple[int, ...]]:
        old, prefix = self.old, self.prefix
        if not old:
            left = max(prefix, 0)
            old = (count - left,) if len(self.grid) == 1 else (isqrt(max(count - left, 0)),) * 2
        prefix = count - prod(old) if prefix < 0 else prefix
        if prefix + prod(old) != count or not 0 <= prefix <= (count if self.prefix >= 0 else 2):
            raise BadArgument(
                f"positions {name!r}",
                expected="a square grid, or its sizes in old and prefix",
                got=f"{count} positions",
                remedy="Say old, the grid before, and prefix, the tokens that are no positions.",
            )
        return prefix, old

    def inverse(self) -> None:
        """None: resampling forgets."""


def _resampled(
    values: Numbers, *, prefix: int, old: tuple[int, ...], new: tuple[int, ...]
) -> Numbers:
    import numpy as np

    channels = values.shape[-1]
    front, grid = np.split(values.reshape(-1, channels), [prefix])
    grid = grid.reshape(*old, channels)
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        grid = np.moveaxis(np.tensordot(resampling(before, after), grid, (1, axis)), 0, axis)
    return np.concatenate([front, grid.reshape(-1, channels)])


def resampling(before: int, after: int) -> Numbers:
    """The matrix (after, before) that resamples a line bicubically (a = -0.5), antialiased.

    As `torch.nn.functional.interpolate(mode="bicubic", antialias=True)` does, half-pixel centres.
    """
    import numpy as np

    scale = before / after
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    matrix = np.zeros((after, before))
    for row in range(after):
        centre = (row + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), before)
        weights = _cubic((np.arange(first, last) + 0.5 - centre) / stretch)
        matrix[row, first:last] = weights / weights.sum()
    return matrix


def _cubic(x: Numbers) -> Numbers:
    import numpy as np

    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    kernel: Numbers = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return kernel


@dataclass(frozen=True)
class InflateConv:
    """Another number of input channels for the convolutions that `pattern` matches.

    One channel is the sum of all; `channels` more are the old ones again and again, scaled so
    that constant inputs give what they gave.
    """

    pattern: str
    channels: int
    op: ClassVar[str] = "inflate-conv"

    def __post_init__(self) -> None:
        _require_size(self.channels, "inflate-conv")

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for what is no convolution's weight."""
        for name in chosen(inventory, self.pattern, "inflate"):
            array = inventory[name]
            if len(array.shape) < 3 or not array.shape[1]:
                raise BadArgument(
                    f"convolution {name!r}",
                    expected="shape (out, in, *kernel)",
                    got=list(array.shape),
                    remedy="Match fewer tensors with pattern.",
                )
            size = (array.shape[0], self.channels, *array.shape[2:])
            inventory.put(name, Computed(array, size, partial(_inflated, channels=self.channels)))

    def inverse(self) -> None:
        """None: the channels before are not kept."""


def _inflated(values: Numbers, *, channels: int) -> Numbers:
    import numpy as np

    before = values.shape[1]
    if channels == 1:
        total: Numbers = values.sum(1, keepdims=True)
        return total
    times = ceil(channels / before)
    tiled = np.tile(values, (1, times, *[1] * (values.ndim - 2)))[:, :channels]
    scaled: Numbers = tiled * (before / channels)
    return scaled
