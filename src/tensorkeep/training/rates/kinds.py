"""torch's schedulers: which there are, what each is made of, which rate is called its base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_own
from torch.optim.swa_utils import SWALR

SEQUENCES: tuple[type, ...] = (torch_own.SequentialLR, torch_own.ChainedScheduler)
# Their rate follows from a step's number and the base, whatever the rate was before.
CLOSED: tuple[type, ...] = (
    torch_own.LambdaLR,
    torch_own.CosineAnnealingWarmRestarts,
    torch_own.CyclicLR,
    torch_own.OneCycleLR,
)
# Each rate is computed from the one before it.
RECURSIVE: tuple[type, ...] = (
    torch_own.StepLR,
    torch_own.MultiStepLR,
    torch_own.ConstantLR,
    torch_own.LinearLR,
    torch_own.ExponentialLR,
    torch_own.PolynomialLR,
    torch_own.CosineAnnealingLR,
    torch_own.MultiplicativeLR,
    SWALR,
)
PLATEAU = torch_own.ReduceLROnPlateau
KNOWN: tuple[type, ...] = (*SEQUENCES, *CLOSED, *RECURSIVE, PLATEAU)
# They hold functions of the user's, or may.
WITH_FUNCTIONS: tuple[type, ...] = (
    torch_own.LambdaLR,
    torch_own.MultiplicativeLR,
    torch_own.CyclicLR,
)
WITH_FLOOR: tuple[type, ...] = (
    torch_own.CosineAnnealingLR,
    torch_own.CosineAnnealingWarmRestarts,
)
# What a class keeps in the groups of its optimizer, beside "lr" and "initial_lr".
IN_GROUPS: dict[type, tuple[str, ...]] = {
    torch_own.OneCycleLR: ("max_lr", "min_lr"),
    SWALR: ("swa_lr",),
}

Scheduler = Any


def parts(scheduler: Scheduler) -> Sequence[Scheduler]:
    """The schedulers that one is made of; none for a simple one."""
    return scheduler._schedulers if type(scheduler) in SEQUENCES else ()


def nodes(scheduler: Scheduler) -> Iterator[Scheduler]:
    """The scheduler and all that it is made of, outermost first, in order."""
    yield scheduler
    for part in parts(scheduler):
        yield from nodes(part)


def unknown(scheduler: Scheduler) -> list[Scheduler]:
    """Those of its nodes that are none of torch's own classes, subclasses included."""
    return [each for each in nodes(scheduler) if type(each) not in KNOWN]


def first(scheduler: Scheduler) -> Scheduler:
    """The simple scheduler that begins; the base of a sequence is its."""
    within = parts(scheduler)
    return first(within[0]) if within else scheduler


def group_keys(scheduler: Scheduler) -> tuple[str, ...]:
    """Rates that the schedule keeps in the groups of its optimizer, beside "lr"."""
    own = [key for each in nodes(scheduler) for key in IN_GROUPS.get(type(each), ())]
    return ("initial_lr", *dict.fromkeys(own))


def bases(scheduler: Scheduler, optimizer: Optimizer) -> list[float]:
    """What `lr` of `mode="base"` takes the place of, for each group.

    The rate that the optimizer was built with, `max_lr` of OneCycleLR, `base_lr` of CyclicLR,
    `swa_lr` of SWALR.
    """
    leaf = first(scheduler)
    key = IN_GROUPS.get(type(leaf), ("",))[0]
    values = [group[key] for group in optimizer.param_groups] if key else leaf.base_lrs
    return [float(value) for value in values]


def called(scheduler: object) -> str:
    """Its class, with the module it is from."""
    return f"{type(scheduler).__module__}.{type(scheduler).__qualname__}"
