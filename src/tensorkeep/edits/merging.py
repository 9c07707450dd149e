"""One checkpoint out of several: averages, and exponential moving averages."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from tensorkeep.edits.arrays import Array
from tensorkeep.edits.computed import Sum
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import BadArgument, UnknownTensor

_STATISTICS = ("running_mean", "running_var")


def _mix(inventory: Inventory, others: tuple[str, ...], weights: tuple[float, ...]) -> None:
    """Put the weighted sum of this checkpoint and `others`, in that order, in its place."""
    sources = [inventory, *(inventory.other(path) for path in others)]
    for source in sources[1:]:
        _require_names(inventory, source)
    kept = []
    for name, array in list(inventory.tensors.items()):
        if not array.dtype.is_floating:
            kept.append(name)
            continue
        parts = tuple(source[name] for source in sources)
        _require_alike(name, parts, sources)
        inventory.put(name, Sum(parts, weights))
    if kept:
        inventory.notes.append(
            f"{len(kept)} tensors that are no floats are those of the first: {kept[0]}"
        )
    if any(name.endswith(_STATISTICS) for name in inventory):
        inventory.notes.append(
            "batch norm statistics were averaged too: run some data through the model in "
            "training mode, as torch.optim.swa_utils.update_bn does, before it is used"
        )


def _require_names(one: Inventory, two: Inventory) -> None:
    for here, there in ((one, two), (two, one)):
        missing = [name for name in here if name not in there]
        if missing:
            raise UnknownTensor(
                there.subject,
                expected=f"the {len(here)} names of {here.subject}",
                got=f"no {missing[0]!r}" + (f" and {len(missing) - 1} more" * (len(missing) > 1)),
                remedy="Bring the names into line first: tensorkeep match.",
            )


def _require_alike(name: str, parts: tuple[Array, ...], sources: list[Inventory]) -> None:
    for part, source in zip(parts, sources, strict=True):
        if part.shape != parts[0].shape or not part.dtype.is_floating:
            raise BadArgument(
                f"{name!r} of {source.subject}",
                expected=f"floats of shape {list(parts[0].shape)}, as in {sources[0].subject}",
                got=f"{part.dtype} {list(part.shape)}",
                remedy="Bring the shapes into line first, with resize for example.",
            )


@dataclass(frozen=True)
class Average:
    """The mean of this checkpoint and `others`; with `weights`, one for each, this one's first.

    `others`: paths. Weights are used as they are: those of a mean add up to 1. Floats only; what
    is no float is taken from this checkpoint. Dtypes are this checkpoint's.
    """

    others: tuple[str, ...]
    weights: tuple[float, ...] = ()
    op: ClassVar[str] = "average"

    def __post_init__(self) -> None:
        if not self.others:
            raise BadArgument(
                "average",
                expected="at least one other checkpoint",
                got="none",
                remedy="Name one in others.",
            )
        if self.weights and len(self.weights) != len(self.others) + 1:
            raise BadArgument(
                "average",
                expected=f"{len(self.others) + 1} weights, this checkpoint's first",
                got=len(self.weights),
                remedy="Give each checkpoint one weight, or none at all for the mean.",
            )
        if not all(map(isfinite, self.weights)):
            raise BadArgument(
                "average",
                expected="finite weights",
                got=list(self.weights),
                remedy="Give numbers that add up to 1.",
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `UnknownTensor`, `BadArgument` where names or shapes differ."""
        count = len(self.others) + 1
        _mix(inventory, self.others, self.weights or (1 / count,) * count)

    def inverse(self) -> None:
        """None: the parts of a sum are not in it."""


@dataclass(frozen=True)
class Ema:
    """The exponential moving average over this checkpoint and then `others`, oldest first.

    Each later one counts 1 - `decay`, and takes `decay` of what was before.
    """

    others: tuple[str, ...]
    decay: float
    op: ClassVar[str] = "ema"

    def __post_init__(self) -> None:
        if not self.others or not 0 <= self.decay < 1:
            raise BadArgument(
                "ema",
                expected="other checkpoints and a decay from 0 to below 1",
                got=f"{len(self.others)} others, decay {self.decay}",
                remedy="Name later checkpoints in others, oldest first, and a decay such as 0.999.",
            )

    def apply(self, inventory: Inventory) -> None:
        """Raises `UnknownTensor`, `BadArgument` where names or shapes differ."""
        last = len(self.others)
        weights = [self.decay**last]
        weights += [(1 - self.decay) * self.decay ** (last - at) for at in range(1, last + 1)]
        _mix(inventory, self.others, tuple(weights))

    def inverse(self) -> None:
        """None: the parts of a sum are not in it."""
