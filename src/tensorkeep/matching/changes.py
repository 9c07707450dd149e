"""What a comparison found, tensor by tensor and module by module."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorkeep.checkpoints.folding import labels_of
from tensorkeep.edits.distances import Distance
from tensorkeep.matching import values

SHAPE, DTYPE, VALUE = "shape", "dtype", "value"


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor that both have and that is not the same: `what` is "shape", "dtype" or "value".

    `before` and `after` are dtype and shape in A and B. `distance` is None where values cannot be
    subtracted or were not read.
    """

    name: str
    what: str
    before: tuple[str, tuple[int, ...]]
    after: tuple[str, tuple[int, ...]]
    distance: Distance | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        d = self.distance
        return {
            "name": self.name,
            "what": self.what,
            "max_abs": _number(d.max_abs) if d else None,
            "rel_l2": d.rel_l2 if d else None,
            "cosine": d.cosine if d else None,
            "odd": d.odd if d else 0,
            "from": {"dtype": self.before[0], "shape": list(self.before[1])},
            "to": {"dtype": self.after[0], "shape": list(self.after[1])},
        }


@dataclass(slots=True)
class ModuleChange:
    """A module, all that lies below it included; "" is the whole.

    `tensors` are those that both have, `changed` how many of them did. `frozen`: none did, and none
    came or went. `distance` is over all whose values were compared, `measured` counts those of them
    that changed.
    """

    name: str
    tensors: int = 0
    changed: int = 0
    frozen: bool = True
    distance: Distance = field(default_factory=Distance)
    measured: int = 0

    @property
    def rel_l2(self) -> float | None:
        """|a - b| / |a| over all compared; None where nothing that changed could be compared."""
        return self.distance.rel_l2 if self.measured or self.frozen else None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "name": self.name,
            "tensors": self.tensors,
            "changed": self.changed,
            "rel_l2": self.rel_l2,
            "frozen": self.frozen,
        }


@dataclass(slots=True)
class ValueChanges:
    """Values that are no tensors: names, and (name, in A, in B) where they differ."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[tuple[str, object, object]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.added) + len(self.removed) + len(self.changed)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        changed = [
            {"name": n, "from": values.shown(a), "to": values.shown(b)} for n, a, b in self.changed
        ]
        return {"added": self.added, "removed": self.removed, "changed": changed}


def _number(value: float) -> float | int | str:
    return value if math.isfinite(value) else repr(value)


def roll_up(
    distances: Mapping[str, Distance | None], changed: Container[str], lost: Iterable[str]
) -> list[ModuleChange]:
    """Every module that has tensors below it, the outer ones first.

    `distances` is by the names of all tensors that both have, `changed` those of them that did,
    and `lost` are the names that one side does not have.
    """
    found: dict[str, ModuleChange] = {}
    for name, distance in distances.items():
        for module in _above(name, found):
            module.tensors += 1
            module.changed += name in changed
            module.frozen = module.frozen and name not in changed
            if distance is not None and not distance.unmeasured:
                module.distance.add(distance)
                module.measured += name in changed
    for name in lost:
        for module in _above(name, found):
            module.frozen = False
    return [module for module in found.values() if module.tensors]


def _above(name: str, found: dict[str, ModuleChange]) -> list[ModuleChange]:
    labels = labels_of(name)[:-1]
    paths = ["", *(".".join(labels[: depth + 1]) for depth in range(len(labels)))]
    return [found.setdefault(path, ModuleChange(path)) for path in paths]
