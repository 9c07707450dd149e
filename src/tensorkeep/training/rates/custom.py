"""A scheduler of the user's own, if its rate can be seen to follow from `base_lrs` alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tensorkeep.errors import BadArgument
from tensorkeep.training.rates.arguments import Scale
from tensorkeep.training.rates.changes import Changes, rates
from tensorkeep.training.rates.kinds import Scheduler, called
from tensorkeep.training.rates.replayed import Shadow

_AHEAD = 4


def plan(
    optimizer: Optimizer, scheduler: Scheduler, scales: Sequence[Scale], *, proportional: bool
) -> Changes:
    """New `base_lrs`. `proportional`: every rate must follow them by the same factor.

    Its `get_lr` is called, on a copy, for this step and some after it. Raises `BadArgument`
    unless it gives the present rate, whatever the rate before was, and follows `base_lrs`.
    """
    probe = _Probe(optimizer, scheduler)
    old, new = rates(scheduler.base_lrs), _bases(scheduler, scales)
    same = [float(group["lr"]) for group in optimizer.param_groups]
    _require(scheduler, probe.now(old) == same, "get_lr() gives another rate than the present one")
    for ahead in range(_AHEAD):
        given = probe.rates(old, ahead, 1.0)
        _require(scheduler, given == probe.rates(old, ahead, 0.37), "it depends on the rate before")
        _follows(scheduler, given, probe.rates([3 * b for b in old], ahead, 1.0))
        if proportional:
            wanted = [s(r) for s, r in zip(scales, given, strict=True)]
            made = probe.rates(new, ahead, 1.0)
            close = all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(wanted, made, strict=True))
            _require(scheduler, close, "its rates do not scale with base_lrs")
    return _changes(optimizer, scheduler, probe.now(new), new)


def _bases(scheduler: Scheduler, scales: Sequence[Scale]) -> list[float]:
    return [s(b) for s, b in zip(scales, rates(scheduler.base_lrs), strict=True)]


def _follows(scheduler: Scheduler, given: Sequence[float], tripled: Sequence[float]) -> None:
    follows = all(a != b or a == 0 for a, b in zip(given, tripled, strict=True))
    _require(scheduler, follows, "it does not follow base_lrs")


def _changes(
    optimizer: Optimizer, scheduler: Scheduler, made: Sequence[float], new: Sequence[float]
) -> Changes:
    changes = Changes(optimizer)
    for at, rate in enumerate(made):
        changes.group(at, "lr", rate)
        changes.group(at, "initial_lr", new[at])
    changes.listed(scheduler, "base_lrs", new)
    changes.listed(scheduler, "_last_lr", made)
    return changes


def _require(scheduler: Scheduler, holds: bool, otherwise: str) -> None:
    if not holds:
        raise refusal(scheduler, otherwise)


def refusal(scheduler: Scheduler, why: str) -> BadArgument:
    """Of a class that is not torch's."""
    return BadArgument(
        f"set_lr, {called(scheduler)}",
        expected="a scheduler of torch's own, or one whose get_lr() follows from base_lrs alone",
        got=why,
        remedy="Build it anew with the new learning rate, and step it to where the run is.",
    )


class _Probe:
    """Asks a copy of a scheduler for rates."""

    def __init__(self, optimizer: Optimizer, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, LRScheduler) or "base_lrs" not in vars(scheduler):
            raise refusal(scheduler, "a class without base_lrs")
        self._optimizer, self._scheduler = optimizer, scheduler

    def now(self, bases: Sequence[float]) -> list[float]:
        """The rates of this step."""
        return self.rates(bases, 0, 1.0)

    def rates(self, bases: Sequence[float], ahead: int, factor: float) -> list[float]:
        """`ahead` steps from now, if the rates before were the present ones times `factor`."""
        before = [float(group["lr"]) * factor for group in self._optimizer.param_groups]
        probe = copy.copy(self._scheduler)
        probe.optimizer = Shadow(self._optimizer, before)
        for group, base in zip(probe.optimizer.param_groups, bases, strict=True):
            group["initial_lr"] = base
        probe.base_lrs = list(bases)
        probe.last_epoch += ahead
        probe._get_lr_called_within_step = True
        try:
            return rates(probe.get_lr())
        except Exception as error:
            raise refusal(self._scheduler, repr(error)) from error
