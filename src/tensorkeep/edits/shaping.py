"""Edits of single tensors, by pattern: cut, padded, turned, cast, scaled, tied, untied."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

from tensorkeep.dtypes import DType, find
from tensorkeep.edits.arrays import Array, Filled
from tensorkeep.edits.casting import counted
from tensorkeep.edits.computed import Sum, one_code
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.resizing import change, chosen
from tensorkeep.edits.shapes import Joined, permuted, require_dim, reshaped, sliced
from tensorkeep.errors import BadArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Slice:
    """Keep `begin` to `end` along `dim`; below 0 they are counted from the end. `end` 0: all."""

    pattern: str
    dim: int = 0
    begin: int = 0
    end: int = 0
    op: ClassVar[str] = "slice"

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for positions outside."""
        change(inventory, self.pattern, "slice", self._sliced)

    def _sliced(self, array: Array, _name: str) -> Array:
        dim = require_dim(array.shape, self.dim)
        size = array.shape[dim]
        begin = self.begin + size if self.begin < 0 else self.begin
        end = self.end + size if self.end <= 0 else self.end
        return sliced(array, dim, begin, end)

    def inverse(self) -> None:
        """None: what was cut is gone."""


@dataclass(frozen=True)
class Pad:
    """Lengthen `dim` by `before` and `after` elements of `value`."""

    pattern: str
    dim: int = 0
    before: int = 0
    after: int = 0
    value: float = 0.0
    op: ClassVar[str] = "pad"

    def __post_init__(self) -> None:
        if not 0 <= self.before + self.after <= 1 << 40 or min(self.before, self.after) < 0:
            raise BadArgument(
                "pad",
                expected="sizes from 0",
                got=f"before {self.before}, after {self.after}",
                remedy="Cut with slice instead of padding by less than 0.",
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for a dimension that is not there."""
        change(inventory, self.pattern, "pad", self._padded)

    def _padded(self, array: Array, _name: str) -> Array:
        dim = require_dim(array.shape, self.dim)
        code = one_code(self.value, array.dtype) if self.value else 0
        front, back = (
            Filled(array.dtype, (*array.shape[:dim], size, *array.shape[dim + 1 :]), code)
            for size in (self.before, self.after)
        )
        return Joined((front, array, back), dim)

    def inverse(self) -> Slice:
        """Cut it off again."""
        return Slice(self.pattern, self.dim, self.before, -self.after)


@dataclass(frozen=True)
class Transpose:
    """The dimensions in another order; by default the last two change places."""

    pattern: str
    dims: tuple[int, ...] = ()
    op: ClassVar[str] = "transpose"

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for dimensions that are not those of the tensor."""
        change(inventory, self.pattern, "transpose", self._turned)

    def _turned(self, array: Array, name: str) -> Array:
        count = len(array.shape)
        if not self.dims and count < 2:
            raise BadArgument(
                f"transpose of {name!r}",
                expected="at least two dimensions",
                got=count,
                remedy="Match fewer tensors with pattern.",
            )
        return permuted(array, self.dims or (*range(count - 2), count - 1, count - 2))

    def inverse(self) -> Transpose:
        """The order that leads back."""
        back = (self.dims.index(at) for at in range(len(self.dims)) if at in self.dims)
        return Transpose(self.pattern, tuple(back))


@dataclass(frozen=True)
class Reshape:
    """Another shape of as many elements; one size may be -1."""

    pattern: str
    shape: tuple[int, ...]
    op: ClassVar[str] = "reshape"

    def __post_init__(self) -> None:
        if self.shape.count(-1) > 1 or min(self.shape, default=0) < -1:
            raise BadArgument(
                "reshape",
                expected="sizes from 0, one of them -1",
                got=list(self.shape),
                remedy="Leave one size to be found out: -1.",
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for another number of elements."""
        change(inventory, self.pattern, "reshape", self._reshaped)

    def _reshaped(self, array: Array, _name: str) -> Array:
        known = 1
        for size in self.shape:
            known *= size if size >= 0 else 1
        rest = array.numel // known if known else 0
        return reshaped(array, tuple(rest if size < 0 else size for size in self.shape))

    def inverse(self) -> None:
        """None: the shape before is not kept."""


@dataclass(frozen=True)
class CastTo:
    """Another dtype for what `pattern` matches, rounded as torch rounds; losses are counted."""

    pattern: str
    dtype: str
    op: ClassVar[str] = "cast"

    def __post_init__(self) -> None:
        self._dtype()

    def _dtype(self) -> DType:
        dtype = find(self.dtype)
        if dtype is None:
            raise BadArgument(
                "cast",
                expected="a dtype such as bfloat16",
                got=repr(self.dtype),
                remedy="Use torch's name of it.",
            )
        return dtype

    def apply(self, inventory: Inventory) -> None:
        """Raises `Unwritable` for what cannot be cast."""
        for name in chosen(inventory, self.pattern, "cast"):
            if inventory[name].dtype is not self._dtype():
                inventory.put(name, counted(name, inventory[name], self._dtype()))

    def inverse(self) -> None:
        """None: the dtype before is not kept."""


@dataclass(frozen=True)
class Scale:
    """Multiply floats by `factor`."""

    pattern: str
    factor: float
    op: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        if not isfinite(self.factor):
            raise BadArgument(
                "scale", expected="a finite factor", got=self.factor, remedy="Give a number."
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `Unwritable` for what are no floats."""
        change(inventory, self.pattern, "scale", lambda array, _: Sum((array,), (self.factor,)))

    def inverse(self) -> Scale | None:
        """Divide again: equal up to rounding."""
        return Scale(self.pattern, 1 / self.factor) if self.factor else None


@dataclass(frozen=True)
class Untie:
    """Write what `pattern` matches under bytes of its own, though another name shares them."""

    pattern: str
    op: ClassVar[str] = "untie"

    def apply(self, inventory: Inventory) -> None:
        """Never fails."""
        for name in chosen(inventory, self.pattern, "untie"):
            inventory.put(name, Alone(inventory[name]))

    def inverse(self) -> None:
        """None: which were tied is not kept."""


@dataclass(frozen=True, eq=False)
class Alone(Array):
    """The elements of `of`, and the same tensor as no other."""

    of: Array

    def __post_init__(self) -> None:
        self._be(self.of.dtype, self.of.shape, self.of)

    def _codes(self, start: int, stop: int) -> NDArray[Any]:
        return self.of.codes(start, stop)


@dataclass(frozen=True)
class Tie:
    """Make `name` the same tensor as `to`, another name, which stays as it is."""

    name: str
    to: str
    op: ClassVar[str] = "tie"

    def apply(self, inventory: Inventory) -> None:
        """Raises `UnknownTensor` without `to`, `BadArgument` for another shape under `name`."""
        kept = inventory[self.to]
        if self.name in inventory and inventory[self.name].shape != kept.shape:
            raise BadArgument(
                f"tie of {self.name!r} to {self.to!r}",
                expected=f"shape {list(kept.shape)}",
                got=list(inventory[self.name].shape),
                remedy="Tie only what has the same shape, or drop the name first.",
            )
        inventory.put(self.name, kept, inventory.origin.get(self.to, ()))

    def inverse(self) -> Untie:
        """Untie it: its own values are not kept."""
        return Untie(f"^{self.name}$")
