"""Before the first step: is what goes on the run that was saved?

`resume` compares fingerprints after it has checked the state and before it changes anything. What
would go on wrongly without a word is refused, what may be meant is a warning for each difference;
`accept` names those that are meant.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tensorkeep.errors import BadArgument, DoesNotFit, TensorkeepWarning
from tensorkeep.training import fingerprint
from tensorkeep.training.fingerprint import KINDS, OVERRIDDEN, Facts, Json
from tensorkeep.training.tracking import Tracked

Print = dict[str, Facts]
_REFUSED = ("optimizer", "moments")
_CALLED = {
    "world_size": "the number of processes",
    "batch_size": "the batch size",
    "workers": "the number of workers",
    "optimizer": "the optimizer's class",
    "options": "an option of the optimizer",
    "order": "the order of the parameters in the groups",
    "moments": "the dtype of the optimizer's state",
    "parameters": "the dtype of the parameters",
    "lambdas": "a function of the schedule",
    "schedule": "the schedule",
    "lr": "the learning rate",
    "flags": "a flag of torch",
    "versions": "the version",
}
_MEANS = {
    "world_size": "Batches are shared out in another way from here on.",
    "batch_size": "Epochs from here on have batches of the new size.",
    "workers": "Random numbers of the augmentation are others from here on.",
    "options": "The checkpoint's goes on; change it in optimizer.param_groups after resume().",
    "order": "Each has its own state, by its name; sums over all of them may round otherwise.",
    "parameters": "The optimizer's state keeps the dtype that it has in the checkpoint.",
    "lambdas": "The new function holds from here on; a rate that it scales goes on from the old.",
    "schedule": "The checkpoint's goes on; for the new one, set the attribute after resume().",
    "lr": "The checkpoint's goes on; for the new one, call "
    'tk.set_lr(optimizer, scheduler, {now}, mode="base") after resume().',
    "flags": "The steps from here on may round otherwise.",
    "versions": "The steps from here on may round otherwise.",
}
_REMEDY = {
    "optimizer": "Make the optimizer that the run had, or leave it untracked to start it anew.",
    "moments": "Make the optimizer's state in the dtype that the run had, and resume before the "
    "first step.",
}


def accepted(names: Iterable[str]) -> frozenset[str]:
    """Raises `BadArgument` for what is no kind of difference."""
    made = frozenset([names] if isinstance(names, str) else names)
    unknown = sorted(str(each) for each in made - frozenset(KINDS))
    if unknown:
        raise BadArgument(
            f"resume(accept={unknown[0]!r})",
            expected=f"one of {', '.join(KINDS)}",
            got=repr(unknown[0]),
        )
    return made


class Preflight:
    """The fingerprint of a run. `tracked`: what it tracks."""

    def __init__(self, tracked: Mapping[str, Tracked]) -> None:
        self._tracked = tracked
        self._built: dict[str, dict[str, Json]] = {}
        self._loaders: dict[str, dict[str, Json]] = {}
        # Loaders of the checkpoint that nobody has asked for yet.
        self._awaited: dict[str, dict[str, Json]] = {}
        # Of a checkpoint that the run went on from: what it puts in place of the configuration.
        self._in_force: Print = {}
        self._bases: dict[str, Json] = {}
        self._accept: frozenset[str] = frozenset()

    def track(self, name: str, target: object) -> None:
        """`target` as it is built; a checkpoint may override it later."""
        self._built[name] = fingerprint.configured(target)

    def written(self, trees: Mapping[str, Any]) -> Print:
        """For a checkpoint of now. `trees`: what each tracked object captures."""
        made = self._now(trees)
        for kind in OVERRIDDEN:
            for name, value in self._in_force.get(kind, {}).items():
                if kind != "lr" or self._present(name) == self._bases.get(name):
                    made[kind][name] = value
        return made

    def _now(self, trees: Mapping[str, Any]) -> Print:
        made: Print = {kind: {} for kind in KINDS} | fingerprint.environment()
        for name, each in self._tracked.items():
            target = fingerprint.target_of(each)
            found = dict(self._built.get(name, {}))
            if isinstance(target, Optimizer):
                found |= fingerprint.of_optimizer(target, trees[name])
                found["lr"] = self._configured_rate(name, target)
            elif isinstance(target, LRScheduler):
                found.pop("lr", None)
            for kind, value in found.items():
                made[kind][name] = value
        for name, facts in {**self._awaited, **self._loaders}.items():
            for kind, value in facts.items():
                made[kind][name] = value
        return made

    def _schedulers(self, optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
        for name, each in self._tracked.items():
            target = fingerprint.target_of(each)
            if isinstance(target, LRScheduler) and target.optimizer is optimizer:
                yield name, target

    def _configured_rate(self, name: str, optimizer: Optimizer) -> Json:
        for scheduler, _ in self._schedulers(optimizer):
            if "lr" in self._built[scheduler]:
                return self._built[scheduler]["lr"]
        return self._built[name]["lr"]

    def _present(self, name: str) -> Json:
        """The base that a tracked optimizer's schedule has now, which `set_lr` changes."""
        optimizer = fingerprint.target_of(self._tracked[name])
        for _, target in self._schedulers(optimizer):
            # ReduceLROnPlateau keeps none, and its rate moves without anybody asking.
            return fingerprint.base_rates(target) or None
        return fingerprint.configured(optimizer)["lr"]

    def compare(self, saved: Print, trees: Mapping[str, Any], accept: frozenset[str]) -> None:
        """Warn of each difference, or raise `DoesNotFit`. `trees`: the state that is put back."""
        captured = {name: each.capture() for name, each in self._tracked.items()}
        now, self._accept = self._now(captured), accept
        different = [each for each in _differences(saved, now) if each[0] not in accept]
        for kind, name, was, have in different:
            if kind in _REFUSED:
                raise _refusal(kind, name, was, have)
        for name, was in saved.get("moments", {}).items():
            have = fingerprint.moments(trees[name])
            if was != have and "moments" not in accept:
                raise _refusal("moments", name, was, have)
        for kind, name, was, have in different:
            _warn(kind, name, was, have, depth=5)

    def restored(self, saved: Print) -> None:
        """The state of the checkpoint is in place."""
        self._in_force = {
            kind: {n: v for n, v in saved.get(kind, {}).items() if n in self._tracked}
            for kind in OVERRIDDEN
        }
        self._bases = {name: self._present(name) for name in self._in_force["lr"]}
        self._loaders, self._awaited = (
            {},
            {
                name: {kind: saved[kind][name] for kind in ("batch_size", "workers")}
                for name in saved.get("batch_size", {})
                if name in saved.get("workers", {})
            },
        )

    def loader(self, name: str, loader: object, *, compared: bool) -> None:
        """A loader is asked for. `compared`: somebody else does that, with more to compare."""
        now, saved = fingerprint.of_loader(loader), self._awaited.pop(name, None)
        self._loaders[name] = now
        if saved is None or compared:
            return
        for kind, have in now.items():
            was = saved[kind]
            if was != have and None not in (was, have) and kind not in self._accept:
                _warn(kind, name, was, have, depth=4)


def _differences(saved: Print, now: Print) -> Iterator[tuple[str, str, Json, Json]]:
    """(kind, name, was, is) of what both have."""
    python = [_minor(each.get("versions", {}).get("python")) for each in (saved, now)]
    for kind in KINDS:
        if kind == "lambdas" and python[0] != python[1]:
            continue  # their bytecode is another
        was, have = saved.get(kind, {}), now[kind]
        for name in was:
            if name in have and was[name] != have[name]:
                yield from _apart(kind, name, was[name], have[name])


def _minor(version: Json) -> list[str]:
    return str(version).split(".")[:2]


def _apart(kind: str, name: str, was: Json, have: Json) -> Iterator[tuple[str, str, Json, Json]]:
    if kind == "moments":
        # State that is not made yet has no dtype.
        if any(was[key] != have[key] for key in was if key in have):
            yield kind, name, was, have
    elif isinstance(was, dict) and isinstance(have, dict):
        for key in was:
            if key in have and was[key] != have[key]:
                yield kind, f"{name}, {key}", was[key], have[key]
    elif None not in (was, have):
        yield kind, name, was, have


def _refusal(kind: str, name: str, was: Json, have: Json) -> DoesNotFit:
    return DoesNotFit(
        f"{name}, {_CALLED[kind]}",
        expected=f"{_words(was)}, as in the checkpoint",
        got=_words(have),
        remedy=f'{_REMEDY[kind]} If it is meant: resume(accept=("{kind}",)).',
    )


def _warn(kind: str, name: str, was: Json, have: Json, depth: int) -> None:
    now = repr(have[0] if isinstance(have, list) and len(have) == 1 else have)
    means = _MEANS[kind].replace("{now}", now)
    text = (
        f"{name}, {_CALLED[kind]}: {_words(was)} in the checkpoint, {_words(have)} now. {means} "
        f'If it is meant: resume(accept=("{kind}",)).'
    )
    warnings.warn(TensorkeepWarning(text), stacklevel=depth)


def _words(value: Json) -> str:
    if isinstance(value, list) and len(value) == 1:
        return _words(value[0])
    if isinstance(value, dict):
        return "; ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(_words(each) for each in value)
    return str(value)
