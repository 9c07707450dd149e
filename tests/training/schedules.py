"""Every scheduler of torch's, built on an optimizer with a base, for the laws of set_lr."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR


class Warmup:
    """A lambda with state, which a scheduler saves."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return min(1.0, (step + 1) / self.steps)


@dataclass(frozen=True)
class Schedule:
    """`build(optimizer, lrs)`; `exact`: to the last bit. `functions`: holds some of the user's."""

    build: Callable
    exact: bool = True
    floor: bool = False
    functions: bool = False


def two_phases(o, lrs):
    return SequentialLR(o, [LinearLR(o, 0.1, total_iters=4), CosineAnnealingLR(o, 9, 0.001)], [5])


def deep(o, lrs):
    chained = ChainedScheduler([ConstantLR(o, 0.5, 3), ExponentialLR(o, 0.95)])
    within = SequentialLR(o, [chained, StepLR(o, 3)], [4])
    return SequentialLR(o, [within, PolynomialLR(o, 30), StepLR(o, 2)], [7, 11])


def chained_deep(o, lrs):
    first = ChainedScheduler([ChainedScheduler([ExponentialLR(o, 0.9)]), StepLR(o, 4, 0.5)])
    return ChainedScheduler([first, MultiStepLR(o, [3, 8], 0.5), CosineAnnealingLR(o, 15, 0.002)])


def then_cycle(o, lrs):
    return SequentialLR(o, [LinearLR(o), CyclicLR(o, lrs, [4 * b for b in lrs], 3)], [6])


def then_one_cycle(o, lrs):
    return SequentialLR(o, [ExponentialLR(o, 0.9), OneCycleLR(o, lrs, 40)], [5])


def then_averaging(o, lrs):
    return SequentialLR(o, [CosineAnnealingLR(o, 20), SWALR(o, [b / 2 for b in lrs], 4)], [6])


SCHEDULES = {
    "Step": Schedule(lambda o, lrs: StepLR(o, 3, 0.3)),
    "MultiStep": Schedule(lambda o, lrs: MultiStepLR(o, [2, 7, 7, 9], 0.4)),
    "Constant": Schedule(lambda o, lrs: ConstantLR(o, 1 / 3, 6)),
    "Linear": Schedule(lambda o, lrs: LinearLR(o, 0.1, 0.9, 7)),
    "Exponential": Schedule(lambda o, lrs: ExponentialLR(o, 0.93)),
    "Polynomial": Schedule(lambda o, lrs: PolynomialLR(o, 12, 1.7)),
    "Cosine": Schedule(lambda o, lrs: CosineAnnealingLR(o, 6)),
    "Cosine with a floor": Schedule(lambda o, lrs: CosineAnnealingLR(o, 5, 0.003), floor=True),
    "WarmRestarts": Schedule(lambda o, lrs: CosineAnnealingWarmRestarts(o, 3, 2)),
    "WarmRestarts with a floor": Schedule(
        lambda o, lrs: CosineAnnealingWarmRestarts(o, 4, 1, 0.002), floor=True
    ),
    "Lambda": Schedule(lambda o, lrs: LambdaLR(o, lambda s: 1 / math.sqrt(s + 1)), functions=True),
    "Lambda object": Schedule(lambda o, lrs: LambdaLR(o, Warmup(6)), functions=True),
    "Multiplicative": Schedule(
        lambda o, lrs: MultiplicativeLR(o, lambda s: 0.9 + 0.01 * (s % 3)), functions=True
    ),
    "OneCycle": Schedule(lambda o, lrs: OneCycleLR(o, lrs, 40), exact=False),
    "OneCycle in three": Schedule(
        lambda o, lrs: OneCycleLR(o, lrs, 40, three_phase=True, anneal_strategy="linear"),
        exact=False,
    ),
    "Cyclic": Schedule(
        lambda o, lrs: CyclicLR(o, lrs, [5 * b for b in lrs], 3, mode="triangular2"), exact=False
    ),
    "Cyclic with a function": Schedule(
        lambda o, lrs: CyclicLR(
            o, lrs, [5 * b for b in lrs], 3, scale_fn=lambda x: 0.8**x, scale_mode="iterations"
        ),
        exact=False,
        functions=True,
    ),
    "SWA": Schedule(lambda o, lrs: SWALR(o, lrs, 5), exact=False),
    "Sequential": Schedule(two_phases, floor=True),
    "Sequential, deep": Schedule(deep),
    "Chained, deep": Schedule(chained_deep, floor=True),
    "Sequential to Cyclic": Schedule(then_cycle, exact=False),
    "Sequential to OneCycle": Schedule(then_one_cycle, exact=False),
    "Sequential to SWA": Schedule(then_averaging, exact=False),
}


def model() -> nn.Module:
    """Three parameters, for up to three groups."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))


def optimizer_of(net: nn.Module, lrs, *, adam: bool = False, tensors: bool = False):
    """One group for each of `lrs`."""
    made = torch.optim.AdamW if adam else torch.optim.SGD
    rest = {} if adam else {"momentum": 0.9}
    groups = [
        {"params": list(part.parameters()), "lr": torch.tensor(lr) if tensors else lr}
        for part, lr in zip(net, lrs, strict=False)
    ]
    return made(groups, **rest)


def built(name: str, lrs, **options):
    """An optimizer and the schedule on it, as new."""
    return built_on(model(), name, lrs, **options)


def built_on(net: nn.Module, name: str, lrs, **options):
    """The same, for the parameters of `net`."""
    start = [0.7 * b for b in lrs] if name == "SWA" else lrs
    optimizer = optimizer_of(net, start, **options)
    return optimizer, SCHEDULES[name].build(optimizer, list(lrs))


def step(optimizer, scheduler, count: int = 1) -> None:
    """Steps of both, with gradients of a kind."""
    for _ in range(count):
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.full_like(param, 0.01)
        optimizer.step()
        scheduler.step()


def rates(optimizer) -> list[float]:
    """The rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]
