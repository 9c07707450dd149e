"""ReduceLROnPlateau: its rate is the base after some reductions, and it counts them nowhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from torch.optim import Optimizer

from tensorkeep.errors import BadArgument
from tensorkeep.training.rates.arguments import Scale, Wanted, scales
from tensorkeep.training.rates.changes import Changes, like, rates
from tensorkeep.training.rates.kinds import Scheduler


def base(optimizer: Optimizer, scheduler: Scheduler, wanted: Wanted) -> Changes:
    """A new base under the reductions so far; `min_lr` stays. Raises `BadArgument`."""
    _require_floors(optimizer, scheduler)
    found = _bases(optimizer, scheduler)
    if found is None or (found[1] and _wanted_already(wanted, found[0])):
        raise _base_unknown(optimizer)
    made = scales(wanted, found[0])
    new = [
        _reduced(scheduler, at, group["lr"], scale)
        for at, (group, scale) in enumerate(zip(optimizer.param_groups, made, strict=True))
    ]
    return _planned(optimizer, scheduler, new, [scale.new for scale in made])


def now(optimizer: Optimizer, scheduler: Scheduler, wanted: Wanted) -> Changes:
    """A new rate; later reductions go on from it, down to `min_lr`. Raises `BadArgument`."""
    _require_floors(optimizer, scheduler)
    made = scales(wanted, rates([group["lr"] for group in optimizer.param_groups]))
    found = _bases(optimizer, scheduler)
    new_bases = None
    if found is not None:
        new_bases = [
            scale(old) if scale.old else old for scale, old in zip(made, found[0], strict=True)
        ]
    return _planned(optimizer, scheduler, [scale.new for scale in made], new_bases)


def _planned(
    optimizer: Optimizer,
    scheduler: Scheduler,
    new: Sequence[float],
    new_bases: Sequence[float] | None,
) -> Changes:
    changes = Changes(optimizer)
    for at, rate in enumerate(new):
        changes.group(at, "lr", rate)
        if new_bases is not None:
            changes.group(at, "initial_lr", new_bases[at])
    changes.listed(scheduler, "_last_lr", new)
    return changes


def _require_floors(optimizer: Optimizer, scheduler: Scheduler) -> None:
    if len(scheduler.min_lrs) != len(optimizer.param_groups):
        raise BadArgument(
            "set_lr, ReduceLROnPlateau",
            expected=f"min_lrs of {len(optimizer.param_groups)} groups",
            got=f"{len(scheduler.min_lrs)}",
            remedy="Set scheduler.min_lrs to one number for each group.",
        )


def _reduced(scheduler: Scheduler, at: int, held: Any, scale: Scale) -> float:  # noqa: ANN401
    """The new base after as many reductions as led from the old one to the rate `held`."""
    count = _count(scheduler, at, scale.old, held)
    if count is None:
        # Set by hand in between: what can be kept is the ratio.
        return max(scale(float(held)), float(scheduler.min_lrs[at]))
    return list(islice(_reductions(scheduler, at, scale.new, held), count + 1))[-1]


def _count(scheduler: Scheduler, at: int, base: float, held: Any) -> int | None:  # noqa: ANN401
    rate = float(held)
    for count, reduced in enumerate(_reductions(scheduler, at, base, held)):
        if reduced <= rate:
            return count if reduced == rate else None
    return None


def _reductions(scheduler: Scheduler, at: int, rate: float, held: Any) -> Iterator[float]:  # noqa: ANN401
    """The base and what each reduction makes of it, as torch computes it, while it makes any.

    `held`: a rate of the kind that it is kept in; a tensor rounds to its own dtype.
    """
    rate = float(like(held, rate))
    while True:
        yield rate
        lower = max(rate * scheduler.factor, scheduler.min_lrs[at])
        if not rate - lower > scheduler.eps:
            return
        rate = float(like(held, lower))


def _bases(optimizer: Optimizer, scheduler: Scheduler) -> tuple[list[float], bool] | None:
    """What the groups began with, and whether that is inferred. None if nothing says it."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    if all("initial_lr" in group for group in groups):
        return rates([group["initial_lr"] for group in groups]), False
    default = float(optimizer.defaults["lr"])
    held = [group["lr"] for group in groups]
    counts = [_count(scheduler, at, default, rate) for at, rate in enumerate(held)]
    known = {count for count in counts if count is not None}
    if len(known) != 1:
        return None
    (count,) = known
    if count and any(float(rate) <= scheduler.min_lrs[at] for at, rate in enumerate(held)):
        return None
    began = [
        default if found is not None else float(rate) / scheduler.factor**count
        for rate, found in zip(held, counts, strict=True)
    ]
    return began, bool(count)


def _wanted_already(wanted: Wanted, began: Sequence[float]) -> bool:
    """An optimizer that was built with the new rate, and resumed: it says nothing of the old."""
    return isinstance(wanted, float | int) and float(wanted) in began


def _base_unknown(optimizer: Optimizer) -> BadArgument:
    default = float(optimizer.defaults["lr"])
    built = "no other" if math.isnan(default) else f"an optimizer built with {default}"
    return BadArgument(
        "set_lr, ReduceLROnPlateau",
        expected="the learning rate that the run began with, in group['initial_lr']",
        got=f"rates {rates([group['lr'] for group in optimizer.param_groups])} and {built}",
        remedy="Say it: group['initial_lr'] = ... for each of optimizer.param_groups; or use "
        'mode="now".',
    )
