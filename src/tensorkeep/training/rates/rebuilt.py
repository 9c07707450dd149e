"""An optimizer and its scheduler out of saved state, as far as their rates go.

Only torch's own classes are made, by name out of a table, and no code of a user's is run: their
functions are not in a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch.optim import Optimizer
from torch.optim.swa_utils import SWALR

from tensorkeep.errors import BadArgument, Damaged
from tensorkeep.training.rates import kinds
from tensorkeep.training.rates.kinds import Scheduler

_BY_NAME = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in kinds.KNOWN}
_FUNCTIONS = ("optimizer", "_schedulers", "lr_lambdas", "anneal_func")


class Rebuilt(Optimizer):
    """The groups of an optimizer, with one number each to train."""

    def __init__(self, options: Sequence[Mapping[str, Any]]) -> None:
        groups = [{**each, "params": [torch.zeros(1)]} for each in options]
        # What it was built with is not saved; a number would be taken for it.
        super().__init__(groups, {"lr": math.nan})

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Nothing to do."""


def scheduler(packed: Mapping[str, Any], optimizer: Optimizer, subject: str) -> Scheduler:
    """`packed`: `class`, `state`, and of a sequence `parts`, the same of each, without state.

    Raises `BadArgument` for classes that are not torch's own, `Damaged`.
    """
    kind = _BY_NAME.get(packed["class"])
    if kind is None:
        raise BadArgument(
            f"{subject}, {packed['class']}",
            expected="a scheduler of torch's own: no other code is run for a checkpoint",
            got="another class",
            remedy="Resume the run and call tk.set_lr there.",
        )
    state = packed["state"]
    made: Scheduler = object.__new__(kind)
    made.__dict__.update({key: each for key, each in state.items() if key not in _FUNCTIONS})
    made.optimizer = optimizer
    if kind in kinds.SEQUENCES:
        made._schedulers = _parts(packed, optimizer, subject)
    if "lr_lambdas" in state:
        made.lr_lambdas = [_not_here] * len(state["lr_lambdas"])
    if isinstance(made, SWALR):
        made._set_anneal_func(made._anneal_strategy)
    return made


def _parts(packed: Mapping[str, Any], optimizer: Optimizer, subject: str) -> list[Scheduler]:
    states, parts = packed["state"]["_schedulers"], packed.get("parts")
    if parts is None or len(parts) != len(states):
        raise Damaged(
            subject,
            expected=f"the classes of the {len(states)} parts of {packed['class']}",
            got="none" if parts is None else f"{len(parts)}",
            remedy="Resume the run and call tk.set_lr there.",
        )
    pairs = zip(parts, states, strict=True)
    return [scheduler({**part, "state": state}, optimizer, subject) for part, state in pairs]


def _not_here(step: int) -> NoReturn:
    raise RuntimeError("the functions of a schedule are not in its checkpoint")


def replayable(made: Scheduler) -> bool:
    """Whether no function of the user's is needed to run it again."""
    return not any(type(each) in kinds.WITH_FUNCTIONS for each in kinds.nodes(made))
