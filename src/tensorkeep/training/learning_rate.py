"""The learning rate by hand, in this process and in a checkpoint: `set_lr` and `offline`.

Setting `group["lr"]` is not enough: some schedulers compute each rate from `base_lrs`, others from
the rate before, OneCycleLR from what it left in the groups. What holds for each is in `rates`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from torch.optim import Optimizer
from torch.optim.swa_utils import SWALR

from tensorkeep.checkpoints.runs import RunFolder, step_of
from tensorkeep.errors import BadArgument, TensorkeepWarning
from tensorkeep.stores._errors import file_name
from tensorkeep.training.rates import custom, kinds, plateau, replayed, saved, scaling
from tensorkeep.training.rates.arguments import Wanted, require_mode, scales
from tensorkeep.training.rates.changes import Changes, rates
from tensorkeep.training.rates.kinds import Scheduler
from tensorkeep.training.rates.saved import Edited


def set_lr(
    optimizer: Optimizer, scheduler: Scheduler | None, lr: Wanted, mode: str = "base"
) -> list[float]:
    """Change the learning rate in the middle of a run; returns the rate of each group from now on.

    `mode="base"`: from now on every step's rate is what the same schedule would give if it had been
    built with the base `lr`. The base is the learning rate that the optimizer was built with; for
    OneCycleLR it is `max_lr`, for CyclicLR `base_lr`, for SWALR `swa_lr`, and their other rates
    keep their ratio to it. `eta_min` and `min_lr` stay. `mode="now"`: the present rate becomes
    `lr`, and every later one is scaled by the same factor, `eta_min` included.

    `lr`: for the first parameter group whose rate is not 0, and the others keep their ratio to it;
    or a list, one for each group. `scheduler`: the one that is stepped (the SequentialLR or
    ChainedScheduler, not a part of it), or None if there is none. Rates that are tensors are
    changed in place. Momentum and all other state stay.

    Warns (`TensorkeepWarning`) if the present rate is not what the schedule gives. Raises
    `BadArgument`, and then nothing has changed: for a scheduler of another optimizer, a rate that
    is negative or not finite, a list of another length, or a schedule that it cannot compute.
    """
    changes = planned(optimizer, scheduler, lr, mode)
    changes.make()
    for note in changes.notes:
        warnings.warn(TensorkeepWarning(note), stacklevel=2)
    return rates([group["lr"] for group in optimizer.param_groups])


def offline(
    run: str | os.PathLike[str],
    lr: Wanted,
    mode: str = "base",
    *,
    step: int | None = None,
    optimizer: str | None = None,
    scheduler: str | None = None,
) -> Edited:
    """`set_lr` on a checkpoint of the run in the folder `run`; says what was changed.

    `step`: which checkpoint; the newest that is whole, if nothing is said. `optimizer` and
    `scheduler`: their names in the run, where there are several. Every byte is verified first.
    The checkpoint is replaced by a new one of the same step, whole or not at all, whose manifest
    says under `edited` what was done and what the rates were. Nothing of the user's is run:
    schedulers of other classes than torch's own are refused, and where a schedule holds functions
    its rates are scaled, to within rounding of what `set_lr` gives.

    Raises `AlreadyExists` if a run has the folder open, `NotFound`, `Damaged`, `StoreError` if no
    checkpoint is whole, `BadArgument`; the old checkpoint is still there then.
    """
    asked = saved.Asked(lr, mode, optimizer, scheduler, planned)
    return saved.edit(RunFolder(Path(file_name(run))), step, asked)


def set_lr_in(folder: str | os.PathLike[str], lr: Wanted, mode: str = "base") -> Edited:
    """`offline` on the checkpoint in `folder`, such as `runs/exp1/step-00000100`."""
    path = Path(file_name(folder))
    step = step_of(path.name)
    if step is None:
        raise BadArgument(
            path, expected="the folder of a step, such as step-00000100", got="another"
        )
    return offline(path.parent, lr, mode, step=step)


def planned(
    optimizer: Optimizer,
    scheduler: Scheduler | None,
    lr: Wanted,
    mode: str,
    *,
    replay: bool = True,
) -> Changes:
    """What `set_lr` will change. `replay`: whether the functions of the schedule can be called."""
    require_mode(mode)
    present = _present(optimizer)
    if scheduler is None:
        return _alone(optimizer, lr, present)
    _require_own(optimizer, scheduler)
    if isinstance(scheduler, kinds.PLATEAU):
        _require_known(scheduler)
        return (plateau.base if mode == "base" else plateau.now)(optimizer, scheduler, lr)
    if type(scheduler) not in kinds.KNOWN:
        old = present if mode == "now" else _bases(scheduler)
        made = scales(lr, old)
        return custom.plan(optimizer, scheduler, made, proportional=mode == "now")
    _require_known(scheduler)
    if mode == "now":
        return scaling.plan(optimizer, scheduler, scales(lr, present))
    return _base(optimizer, scheduler, lr, replay)


def _base(optimizer: Optimizer, scheduler: Scheduler, lr: Wanted, replay: bool) -> Changes:
    made = scales(lr, kinds.bases(scheduler, optimizer))
    if type(scheduler) is SWALR:
        # It begins where another schedule ended, which its own steps do not tell.
        return scaling.plan(optimizer, scheduler, made)
    if not replay:
        return scaling.plan(optimizer, scheduler, made, floors=False)
    return replayed.plan(optimizer, scheduler, made)


def _bases(scheduler: Scheduler) -> list[float]:
    if "base_lrs" not in getattr(scheduler, "__dict__", {}):
        raise custom.refusal(scheduler, "a class without base_lrs")
    return rates(scheduler.base_lrs)


def _alone(optimizer: Optimizer, lr: Wanted, present: list[float]) -> Changes:
    changes = Changes(optimizer)
    for at, scale in enumerate(scales(lr, present)):
        changes.group(at, "lr", scale.new)
        changes.group(at, "initial_lr", scale.new)
    return changes


def _present(optimizer: Optimizer) -> list[float]:
    if not isinstance(optimizer, Optimizer):
        raise BadArgument(
            "set_lr", expected="an optimizer of torch", got=f"a {kinds.called(optimizer)}"
        )
    return rates([group["lr"] for group in optimizer.param_groups])


def _require_own(optimizer: Optimizer, scheduler: Scheduler) -> None:
    for each in kinds.nodes(scheduler):
        if getattr(each, "optimizer", None) is not optimizer:
            raise BadArgument(
                f"set_lr, {kinds.called(each)}",
                expected="a scheduler of this optimizer",
                got="one of another"
                if hasattr(each, "optimizer")
                else "an object without an optimizer",
                remedy="Give the optimizer and the scheduler that belong together.",
            )
        listed = [name for name in ("base_lrs", "_last_lr") if name in vars(each)]
        if any(len(getattr(each, name)) != len(optimizer.param_groups) for name in listed):
            raise BadArgument(
                f"set_lr, {kinds.called(each)}",
                expected=f"rates of {len(optimizer.param_groups)} parameter groups",
                got=f"{len(getattr(each, listed[0]))}",
                remedy="Build the scheduler after all groups are added.",
            )


def _require_known(scheduler: Scheduler) -> None:
    for each in kinds.unknown(scheduler):
        raise custom.refusal(each, "a subclass, or one inside another scheduler")
