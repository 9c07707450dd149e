"""`match`: does a checkpoint fit a model, and after which renames?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tensorkeep.checkpoints.opening import Source
from tensorkeep.errors import BadArgument
from tensorkeep.facts import Limits
from tensorkeep.live import modules
from tensorkeep.live.modules import Arguments
from tensorkeep.matching.against import match_checkpoint, wanted_of
from tensorkeep.matching.report import MatchReport
from tensorkeep.matching.specs import Wanted

if TYPE_CHECKING:
    import torch


def match(
    ckpt: Source,
    against: Source | torch.nn.Module,
    *,
    section: str | None = None,
    model_args: Arguments = None,
    limits: Limits | None = None,
) -> MatchReport:
    """How the weights in `ckpt` fit `against`: rules, and what they leave. No tensor is read.

    `against`: a module; another checkpoint; an inventory that `inspect --format json` wrote; or
    the name of a factory, `package.module:factory`, that is called with `model_args` (a mapping
    or a sequence) on the meta device. `section`: a top-level part of `ckpt`, "all", or None for
    the weights. torch is imported for factories only.

    Raises `ReadError`, `StoreError`, `SelectionError` (a section without tensors is one),
    `BadArgument` for a factory that gives no module, and `MissingExtra` without torch.
    """
    wanted = _wanted(against, model_args, limits)
    return match_checkpoint(ckpt, wanted, section, limits)


def _wanted(
    against: Source | torch.nn.Module, arguments: Arguments, limits: Limits | None
) -> Wanted:
    if _is_module(against):
        return modules.inventory(cast("torch.nn.Module", against), type(against).__qualname__)
    if isinstance(against, str) and _is_factory(against):
        module, notes = modules.build(against, arguments)
        wanted = modules.inventory(module, against)
        wanted.notes[:0] = notes
        return wanted
    if arguments is not None:
        raise BadArgument(
            "model_args", expected="a factory to give them to", got=os.fsdecode(str(against))
        )
    return wanted_of(cast(Source, against), limits)


def _is_module(against: Source | torch.nn.Module) -> bool:
    """Told by what it can do: most of what is asked for needs no torch to be imported."""
    made = not isinstance(against, type)
    return made and hasattr(against, "state_dict") and hasattr(against, "named_modules")


def _is_factory(text: str) -> bool:
    """What is no path that exists and no URL."""
    return "://" not in text and text != "-" and not Path(text).exists()
