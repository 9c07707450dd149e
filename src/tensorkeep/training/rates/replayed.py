"""A schedule from its beginning with another base, stepped as often as the real one was.

It runs on a shadow: an optimizer with the groups of the real one and nothing to train. torch
computes most rates from the rate before, with a rounding at each step; only the same steps from
the new base end in the same bits as a run that had that base from the start.
"""

from __future__ import annotations

import copy
import functools
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_own
from torch.optim.swa_utils import SWALR

from tensorkeep.errors import BadArgument
from tensorkeep.training.rates.arguments import Scale
from tensorkeep.training.rates.changes import Changes, like, rates
from tensorkeep.training.rates.kinds import (
    CLOSED,
    Scheduler,
    called,
    first,
    group_keys,
    nodes,
    parts,
)

# A rate that differs by more than this from that of its schedule was not made by it.
_ROUNDING, _ROUNDING_OF_TENSORS = 1e-9, 1e-4
# A minute's worth or two; a count out of a file may be anything.
_MOST = 20_000_000
_NOT_OPTIONS = ("params", "param_names", "initial_lr")
_PLAIN = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)


class Shadow(Optimizer):
    """The groups of an optimizer, as new, with one number each to train."""

    def __init__(self, optimizer: Optimizer, begin: Sequence[float]) -> None:
        groups = []
        for group, rate in zip(optimizer.param_groups, begin, strict=True):
            options = {k: v for k, v in group.items() if k not in _NOT_OPTIONS}
            rate_of = _on_cpu(like(group["lr"], rate))
            groups.append({**options, "params": [torch.zeros(1)], "lr": rate_of})
        super().__init__(groups, dict(optimizer.defaults))
        self._opt_called = True  # or every schedule warns that it is stepped first

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Nothing to do."""


def _on_cpu(rate: Any) -> Any:  # noqa: ANN401
    return rate.cpu() if isinstance(rate, torch.Tensor) else rate


def plan(optimizer: Optimizer, scheduler: Scheduler, scales: Sequence[Scale]) -> Changes:
    """The changes to the base that `scales` say. Raises `BadArgument`."""
    keep = [Scale(each.old, each.old) for each in scales]
    before = _Replay(optimizer, scheduler, keep)
    after = _Replay(optimizer, scheduler, scales)
    _require_same_steps(scheduler, before.scheduler)
    changes = Changes(optimizer)
    changes.notes += _edited(optimizer, before.shadow)
    after.plan(changes)
    return changes


class _Replay:
    def __init__(self, optimizer: Optimizer, scheduler: Scheduler, scales: Sequence[Scale]) -> None:
        self._real = scheduler
        begin = [s(float(b)) for s, b in zip(scales, first(scheduler).base_lrs, strict=True)]
        self.shadow = Shadow(optimizer, begin)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.scheduler = _again(scheduler, self.shadow, optimizer, scales)
                _step(scheduler, self.scheduler)
        except BadArgument:
            raise
        except Exception as error:
            raise BadArgument(
                f"set_lr, {called(scheduler)}",
                expected="a schedule that can be computed from its first step",
                got=repr(error),
                remedy='Use mode="now", which scales the rates and computes none.',
            ) from error

    def plan(self, changes: Changes) -> None:
        """Bring over what the replay ended with."""
        for real, made in zip(nodes(self._real), nodes(self.scheduler), strict=True):
            for name in ("base_lrs", "max_lrs", "_last_lr"):
                if name in vars(real):
                    changes.listed(real, name, rates(getattr(made, name)))
        for at, group in enumerate(self.shadow.param_groups):
            for key in ("lr", *group_keys(self._real)):
                changes.group(at, key, float(group[key]))


def _step(real: Scheduler, made: Scheduler) -> None:
    """As often as the real one was."""
    if type(real) in CLOSED:
        for name in ("T_cur", "T_i", "_step_count"):
            if name in vars(real):
                setattr(made, name, getattr(real, name))
        made.last_epoch = real.last_epoch - 1
        made._update_lr()
        return
    steps = _steps(real)
    if steps > _MOST:
        raise BadArgument(
            f"set_lr, {called(real)}",
            expected=f"at most {_MOST:,} steps to compute again",
            got=f"{steps:,}",
            remedy='Use mode="now", which scales the rates and computes none.',
        )
    for _ in range(steps):
        made.step()


def _steps(real: Scheduler) -> int:
    chained = type(real) is torch_own.ChainedScheduler
    return _steps(parts(real)[0]) if chained else int(real.last_epoch)


def _again(
    real: Scheduler, shadow: Shadow, optimizer: Optimizer, scales: Sequence[Scale]
) -> Scheduler:
    """What its constructor makes of the shadow. The parts of a sequence are built in order."""
    within = [_again(part, shadow, optimizer, scales) for part in parts(real)]
    if type(real) is torch_own.SequentialLR:
        return torch_own.SequentialLR(shadow, within, list(real._milestones))
    if type(real) is torch_own.ChainedScheduler:
        return torch_own.ChainedScheduler(within, shadow)
    made = copy.copy(real)
    made.optimizer = shadow
    finish = _BEGIN.get(type(real), _nothing)(made, optimizer, scales)
    torch_own.LRScheduler.__init__(made, shadow)
    if finish is not None:
        made.base_lrs = finish
    return made


Begin = Callable[[Scheduler, Optimizer, Sequence[Scale]], "list[Any] | None"]


def _nothing(made: Scheduler, optimizer: Optimizer, scales: Sequence[Scale]) -> None:
    """Most classes begin with what they were given."""


def _functions(made: Scheduler, optimizer: Optimizer, scales: Sequence[Scale]) -> None:
    # An object that counts its calls must not count ours.
    made.lr_lambdas = [
        copy.deepcopy(each) if not isinstance(each, _PLAIN) else each for each in made.lr_lambdas
    ]


def _restarts(made: Scheduler, optimizer: Optimizer, scales: Sequence[Scale]) -> None:
    made.T_i, made.T_cur = made.T_0, -1


def _cyclic(made: Scheduler, optimizer: Optimizer, scales: Sequence[Scale]) -> list[Any]:
    made.max_lrs = _scaled(made.max_lrs, scales)
    base = _scaled(made.base_lrs, scales)
    for group, rate in zip(made.optimizer.param_groups, base, strict=True):
        group["lr"] = _on_cpu(like(group["lr"], float(rate)))
    return base


def _one_cycle(made: Scheduler, optimizer: Optimizer, scales: Sequence[Scale]) -> None:
    for key in ("initial_lr", "max_lr", "min_lr"):
        _in_groups(key, made, optimizer, scales)


def _averaging(made: Scheduler, optimizer: Optimizer, scales: Sequence[Scale]) -> None:
    _in_groups("swa_lr", made, optimizer, scales)


def _in_groups(key: str, made: Scheduler, optimizer: Optimizer, scales: Sequence[Scale]) -> None:
    old = [group[key] for group in optimizer.param_groups]
    for group, rate in zip(made.optimizer.param_groups, _scaled(old, scales), strict=True):
        group[key] = rate


def _scaled(values: Sequence[Any], scales: Sequence[Scale]) -> list[Any]:
    return [_on_cpu(like(v, s(float(v)))) for v, s in zip(values, scales, strict=True)]


_BEGIN: dict[type, Begin] = {
    torch_own.LambdaLR: _functions,
    torch_own.MultiplicativeLR: _functions,
    torch_own.CosineAnnealingWarmRestarts: _restarts,
    torch_own.CyclicLR: _cyclic,
    torch_own.OneCycleLR: _one_cycle,
    SWALR: _averaging,
}


def _require_same_steps(real: Scheduler, made: Scheduler) -> None:
    for own, replayed in zip(nodes(real), nodes(made), strict=True):
        steps, found = (vars(each).get("last_epoch", 0) for each in (own, replayed))
        if steps != found:
            raise BadArgument(
                f"set_lr, {called(real)}",
                expected=f"parts that were stepped by it alone ({called(own)}: {found} steps)",
                got=f"{steps} steps",
                remedy='Use mode="now", or build the schedule anew and step it.',
            )


def _edited(optimizer: Optimizer, shadow: Shadow) -> list[str]:
    notes = []
    for at, (group, made) in enumerate(
        zip(optimizer.param_groups, shadow.param_groups, strict=True)
    ):
        have, own = float(group["lr"]), float(made["lr"])
        largest = max(abs(have), abs(own), float(made["initial_lr"]))
        exact = not isinstance(group["lr"], torch.Tensor)
        if abs(have - own) > (_ROUNDING if exact else _ROUNDING_OF_TENSORS) * largest:
            notes.append(
                f"group {at} had the learning rate {have} where its schedule gives {own}: it was "
                "set by hand, or another scheduler works on the same optimizer. From now on it is "
                "what the schedule with the new base gives."
            )
    return notes
