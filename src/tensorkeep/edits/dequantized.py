"""int8 codes and the scales beside them as floats again."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.edits.arrays import Array, numbers
from tensorkeep.edits.int8 import FLOAT32, INT8, SCALE
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import BadArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[Any]

# Rows that are not worth a call each.
_SHORT = 1 << 10


@dataclass(frozen=True)
class Dequantized(Array):
    """`of`, int8, times `scale` (one, or one for each of dimension 0), as elements of `to`."""

    of: Array
    scale: Array
    to: DType = field(default=FLOAT32)
    computes = True

    def __post_init__(self) -> None:
        rows = self.of.shape[:1]
        if self.scale.numel != 1 and (self.scale.shape[:1] != rows or self.scale.numel != rows[0]):
            raise BadArgument(
                "a scale",
                expected=f"one, or one for each of the {rows[0] if rows else 1} output channels",
                got=f"{self.scale.dtype} {list(self.scale.shape)}",
                remedy="Dequantize it with what quantised it.",
            )
        self._be(self.to, self.of.shape, self.of, self.scale)

    def _codes(self, start: int, stop: int) -> Codes:
        import numpy as np

        values = numbers(self.of, start, stop).astype("<f4")
        columns = self.of.numel if self.scale.numel == 1 else prod(self.of.shape[1:])
        first, last = start // columns, (stop - 1) // columns + 1
        scale = numbers(self.scale, first, last).astype("<f4", copy=False)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if columns < _SHORT:
                values *= np.repeat(scale, columns)[start - first * columns :][: len(values)]
                return self.rounded(values, start)
            for at, one in enumerate(scale, first):
                begin, end = at * columns - start, (at + 1) * columns - start
                values[max(begin, 0) : end] *= one
        return self.rounded(values, start)


@dataclass(frozen=True)
class Dequantize:
    """Every int8 `weight` with a `weight_scale` beside it becomes floats of `to`; the scale goes.

    The names need not be these: any two of which one is the other and `_scale`.
    """

    to: str = "float32"
    op: ClassVar[str] = "dequantize"

    def __post_init__(self) -> None:
        if self.to not in BY_NAME or not BY_NAME[self.to].is_floating:
            raise BadArgument(
                "dequantize",
                expected="a floating point dtype",
                got=repr(self.to),
                remedy="Say float32, float16 or bfloat16.",
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` where the scales are not one, or one for an output channel."""
        found = {name for name in inventory if self._is_pair(name, inventory)}
        if not found:
            inventory.notes.append("no int8 tensor has a scale beside it to dequantize with")
        for name in found:
            whole = Dequantized(inventory[name], inventory[name + SCALE], BY_NAME[self.to])
            origin = inventory.origin.get(name, ()) + inventory.origin.get(name + SCALE, ())
            inventory.put(name, whole, origin)
        inventory.drop([name + SCALE for name in found])

    def _is_pair(self, name: str, inventory: Inventory) -> bool:
        if name + SCALE not in inventory or inventory[name].dtype is not INT8:
            return False
        if name + "_zero_point" in inventory:
            raise BadArgument(
                name,
                expected="symmetric int8 codes",
                got=f"{name}_zero_point beside them",
                remedy="Dequantize it with what quantised it.",
            )
        return inventory[name + SCALE].dtype.is_floating

    def inverse(self) -> None:
        """None: which floats were rounded to a code is forgotten."""
