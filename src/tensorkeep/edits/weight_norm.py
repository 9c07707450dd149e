"""Weight norm: one weight out of a magnitude and a direction, and back.

Source: `torch.nn.utils.weight_norm` (`weight_g`, `weight_v`) and
`torch.nn.utils.parametrizations.weight_norm` (`parametrizations.weight.original0`, `original1`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tensorkeep.edits import patterns
from tensorkeep.edits.arrays import Array
from tensorkeep.edits.computed import Normed, norms, require_floats
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import BadArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The endings of the magnitude and of the direction; {} is the weight's own name.
_ENDINGS = (
    ("{}_g", "{}_v"),
    ("parametrizations.{}.original0", "parametrizations.{}.original1"),
)


def pairs(inventory: Inventory, weight: str) -> dict[str, tuple[str, str]]:
    """Names that folded weights will have, each with its magnitude and its direction."""
    found = {}
    for first, second in _ENDINGS:
        ends = first.format(weight), second.format(weight)
        for name in inventory:
            stem = name.removesuffix(ends[0])
            whole = name == stem + ends[0] and (not stem or stem.endswith("."))
            if whole and stem + ends[1] in inventory:
                found[stem + weight] = (name, stem + ends[1])
    return found


def normed_dim(magnitude: Array, direction: Array, name: str) -> int | None:
    """The dimension along which norms were taken; None for one norm of the whole."""
    if magnitude.shape == () or (magnitude.numel == 1 and direction.shape[:1] != (1,)):
        return None
    if len(magnitude.shape) == len(direction.shape):
        for dim, size in enumerate(direction.shape):
            if magnitude.shape == tuple(
                size if at == dim else 1 for at in range(len(direction.shape))
            ):
                return dim
    raise BadArgument(
        f"weight norm of {name!r}",
        expected=f"a magnitude along one dimension of {list(direction.shape)}",
        got=list(magnitude.shape),
        remedy="Fold weights only that torch.nn.utils.weight_norm made.",
    )


@dataclass(frozen=True)
class FoldWeightNorm:
    """Put `weight` in the place of its magnitude and direction, wherever both are.

    `weight` is the parameter's own name, the last part.
    """

    weight: str = "weight"
    op: ClassVar[str] = "fold-weight-norm"

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for shapes that weight norm does not make, `NameCollision`."""
        found = pairs(inventory, self.weight)
        if not found:
            inventory.notes.append("no weight norm to fold")
        for name, (magnitude, direction) in found.items():
            g, v = inventory[magnitude], inventory[direction]
            inventory.replace([magnitude, direction], {name: Normed(v, g, normed_dim(g, v, name))})

    def inverse(self) -> None:
        """None: which weights were normed is not kept."""


@dataclass(frozen=True)
class UnfoldWeightNorm:
    """Magnitude and direction in the place of each weight that `pattern` matches.

    `dim`: where norms are taken, as torch's argument. `parametrized`: under the newer names. The
    direction is the weight itself, as torch makes it.
    """

    pattern: str
    dim: int = 0
    parametrized: bool = True
    op: ClassVar[str] = "unfold-weight-norm"

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument`, `Unwritable` for integers, `NameCollision`."""
        pattern, (first, second) = patterns.compiled(self.pattern), _ENDINGS[self.parametrized]
        chosen = [name for name in inventory if pattern.matches(name)]
        if not chosen:
            inventory.notes.append(f"no name matches {self.pattern!r} to unfold")
        for name in chosen:
            stem, _, own = name.rpartition(".")
            stem, array = stem + "." * bool(stem), inventory[name]
            made = {
                stem + first.format(own): Norms(array, self.dim),
                stem + second.format(own): array,
            }
            inventory.replace([name], made)

    def inverse(self) -> FoldWeightNorm:
        """Fold them again: equal up to rounding."""
        return FoldWeightNorm()


@dataclass(frozen=True)
class Norms(Array):
    """The 2-norms of `of` along `dim`, in a shape of ones but for that dimension."""

    of: Array
    dim: int
    splits = False
    computes = True

    def __post_init__(self) -> None:
        require_floats(self.of, "a weight norm")
        if not 0 <= self.dim < len(self.of.shape):
            raise BadArgument(
                "a weight norm",
                expected=f"a dimension of {list(self.of.shape)}",
                got=self.dim,
                remedy="tensorkeep inspect --tensors shows the shapes.",
            )
        shape = tuple(size if at == self.dim else 1 for at, size in enumerate(self.of.shape))
        self._be(self.of.dtype, shape, self.of)

    def _codes(self, start: int, stop: int) -> NDArray[Any]:
        return self.rounded(norms(self.of, self.dim)[start:stop], start)
