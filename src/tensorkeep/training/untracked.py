"""What the function that saves a run holds, has state, and is not tracked."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader

from tensorkeep.training.batches import Loaders
from tensorkeep.training.tracking import Tracked

_STATEFUL: tuple[type, ...] = (
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    torch.optim.lr_scheduler.ReduceLROnPlateau,
    torch.optim.swa_utils.AveragedModel,
    torch.amp.GradScaler,
    torch.Generator,
    random.Random,
)


def untracked(
    tracked: Mapping[str, Tracked], loaders: Loaders, batched: Sequence[object] = ()
) -> list[str]:
    """Such as "rng (numpy.random.Generator)", of the functions that called `Run.save`.

    Looks at local and global variables, and at the attributes of these and of a loader's dataset:
    what lies deeper is not found. `batched`: what `Run.batches` was given.
    """
    known = {id(each) for each in (*_known(tracked, loaders), *batched)}
    kinds = (*_STATEFUL, *_of_numpy(), DataLoader)
    found: dict[int, str] = {}
    for name, value in _variables():
        for path, each in [(name, value), *_attributes(name, value)]:
            if isinstance(each, kinds) and id(each) not in known:
                kind = f"{type(each).__module__.partition('._')[0]}.{type(each).__qualname__}"
                found.setdefault(id(each), f"{path} ({kind})")
    return list(found.values())


def _known(tracked: Mapping[str, Tracked], loaders: Loaders) -> Iterator[object]:
    for each in tracked.values():
        yield from (getattr(each, name, None) for name in ("target", "module", "optimizer"))
    for entry in loaders._entries.values():
        if entry.carried is not None:
            yield from entry.carried.generators.values()
    yield torch.default_generator


def _of_numpy() -> tuple[type, ...]:
    numpy = sys.modules.get("numpy")
    return () if numpy is None else (numpy.random.Generator, numpy.random.RandomState)


def _variables() -> Iterator[tuple[str, object]]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if not str(frame.f_globals.get("__name__", "")).startswith("tensorkeep."):
            yield from list(frame.f_locals.items())
            yield from list(frame.f_globals.items())
        frame = frame.f_back


def _attributes(name: str, value: object) -> Iterator[tuple[str, Any]]:
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict) and not isinstance(value, type | type(sys) | torch.nn.Module):
        yield from ((f"{name}.{key}", each) for key, each in list(own.items()))
        if isinstance(value, DataLoader):
            yield from _attributes(f"{name}.dataset", value.dataset)
