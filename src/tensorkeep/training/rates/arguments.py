"""What was asked for: the learning rate of each group, and how others follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any

import torch

from tensorkeep.errors import BadArgument

MODES = ("base", "now")
Wanted = float | Sequence[float]


@dataclass(frozen=True, slots=True)
class Scale:
    """How the rates of one group change: `old` becomes `new`, every other by the same factor."""

    old: float
    new: float

    def __call__(self, rate: float) -> float:
        """Raises `BadArgument` where `old` is 0 and no factor leads from it to `new`."""
        if rate == self.old:
            return self.new
        if rate == 0 or self.new == self.old:
            return rate
        if self.old == 0:
            raise BadArgument(
                "set_lr",
                expected="a rate that is not 0, to scale the others by",
                got=f"0, beside a rate of {rate}",
                remedy="Use the other mode, or build the schedule anew.",
            )
        return _ruled(rate, self.new, self.old)


def require_mode(mode: str) -> None:
    """Raises `BadArgument`."""
    if mode not in MODES:
        raise BadArgument("set_lr(mode=...)", expected="'base' or 'now'", got=repr(mode))


def scales(wanted: Wanted, old: Sequence[float]) -> list[Scale]:
    """One for each group, of which `old` are the rates that the wanted ones take the place of.

    One number is for the first group whose rate is not 0, and the others keep their ratio to it;
    several are one for each group. Raises `BadArgument`.
    """
    if not all(math.isfinite(each) for each in old):
        raise BadArgument(
            "set_lr",
            expected="learning rates that are numbers",
            got=str(list(old)),
            remedy="Set group['lr'] of each group to a number first.",
        )
    if isinstance(wanted, list | tuple):
        if len(wanted) != len(old):
            raise BadArgument(
                "set_lr(lr=...)",
                expected=f"one learning rate for each of the {len(old)} parameter groups",
                got=f"{len(wanted)}",
            )
        return [Scale(a, _rate(b)) for a, b in zip(old, wanted, strict=True)]
    rate = _rate(wanted)
    first = next((each for each in old if each), 0.0)
    same = [rate if not first or each == first else _ruled(each, rate, first) for each in old]
    return [Scale(a, b) for a, b in zip(old, same, strict=True)]


def _ruled(rate: float, new: float, old: float) -> float:
    """`rate * new / old` of the decimals that people write: 0.02 * 0.5 / 0.1 is 0.1.

    In binary it would be 0.09999999999999999, and not the rate of a run that was built with 0.1.
    """
    a, b, c = (Fraction(repr(float(each))) for each in (rate, new, old))
    try:
        return float(a * b / c)
    except OverflowError:
        raise BadArgument(
            "set_lr(lr=...)", expected="rates that a float can hold", got=f"{rate} * {new} / {old}"
        ) from None


def _rate(given: object) -> float:
    value: Any = given
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    usable = isinstance(value, Real) and not isinstance(value, bool)
    if not usable or not math.isfinite(value) or value < 0:
        raise BadArgument("set_lr(lr=...)", expected="a number, 0 or more", got=repr(given))
    return float(value)
