"""A whole schedule times a factor: no step of it is computed, so its history does not matter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import Optimizer

from tensorkeep.errors import BadArgument
from tensorkeep.training.rates.arguments import Scale
from tensorkeep.training.rates.changes import Changes, rates
from tensorkeep.training.rates.kinds import WITH_FLOOR, Scheduler, called, group_keys, nodes


def plan(
    optimizer: Optimizer, scheduler: Scheduler, scales: Sequence[Scale], *, floors: bool = True
) -> Changes:
    """Every rate of the schedule, by the factors of `scales`. Raises `BadArgument`.

    `floors`: `eta_min` as well; otherwise a schedule that has one is refused, since only its
    steps say how far above it a rate is.
    """
    changes = Changes(optimizer)
    for node in nodes(scheduler):
        for name in ("base_lrs", "max_lrs", "_last_lr"):
            if name in vars(node):
                pairs = zip(scales, rates(getattr(node, name)), strict=True)
                changes.listed(node, name, [scale(rate) for scale, rate in pairs])
        if type(node) in WITH_FLOOR and node.eta_min:
            changes.attribute(node, "eta_min", node.eta_min * _common(node, scales, floors))
    for at, (group, scale) in enumerate(zip(optimizer.param_groups, scales, strict=True)):
        for key in ("lr", *group_keys(scheduler)):
            if key in group:
                changes.group(at, key, scale(float(group[key])))
    return changes


def _common(node: Scheduler, scales: Sequence[Scale], floors: bool) -> float:
    """The factor of all groups: `eta_min` is one number for all."""
    if not floors:
        raise BadArgument(
            f"set_lr, {called(node)} beside functions that are not saved",
            expected="eta_min = 0",
            got=f"eta_min = {node.eta_min}",
            remedy="Resume the run and call tk.set_lr there.",
        )
    factors = [each(1.0) for each in (Scale(s.old, s.new) for s in scales if s.old)]
    if not factors or any(not math.isclose(each, factors[0], rel_tol=1e-9) for each in factors):
        raise BadArgument(
            f"set_lr, {called(node)}",
            expected="one factor for all groups, since eta_min is one number for all of them",
            got=f"factors {factors}",
            remedy='Give one learning rate, or use mode="base", which leaves eta_min alone.',
        )
    return factors[0]
