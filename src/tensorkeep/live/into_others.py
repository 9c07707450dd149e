"""Optimizers, schedulers and scalers: the state of each out of its section of a checkpoint."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path, name_of
from tensorkeep.errors import (
    AmbiguousSection,
    DoesNotFit,
    NothingSelected,
    UnknownSection,
)
from tensorkeep.facts import Limits
from tensorkeep.formats.contents import Graft, Items
from tensorkeep.live.incoming import Raw, at_path, built
from tensorkeep.live.report import LoadReport, listed

# State of a parameter that has the parameter's own shape, in torch's optimizers.
_LIKE_PARAMETER = frozenset(
    {
        *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg"),
        *("acc_delta", "grad_avg", "sum", "ax", "prev", "step_size"),
    }
)
_WORDS = {"scheduler": r"sched", "scaler": r"scaler|amp"}


def load(
    target: Any,  # noqa: ANN401 - whatever has state_dict and load_state_dict
    ckpt: Checkpoint,
    section: str | None,
    limits: Limits,
    began: float,
) -> LoadReport:
    """Give `target` the state that the checkpoint has for it; if that fails, it stays as it was.

    Raises `DoesNotFit`, `SelectionError`, `Unsupported` for state that only running the file would
    make.
    """
    is_optimizer = isinstance(target, torch.optim.Optimizer)
    path = _optimizer_path(ckpt, section) if is_optimizer else _other_path(target, ckpt, section)
    raw = at_path((ckpt.contents.root, ckpt.contents.lens), path)
    assert raw is not None
    name = name_of(path)
    value = built({name: raw}, limits, ckpt)[name]
    if not isinstance(value, dict):
        raise DoesNotFit(
            ckpt.path, expected="a dict of state", got=f"a {type(value).__name__}", where=name
        )
    state: dict[str, Any] = {str(k): v for k, v in value.items()}
    if is_optimizer:
        state = _fitted(target, state, ckpt.path, name)
    else:
        _check_keys(target, state, ckpt.path, name)
    _take(target, state, ckpt.path, name)
    tensors = list(_tensors(state))
    return LoadReport(
        ckpt.path,
        name,
        type(target).__qualname__,
        tensors=len(tensors),
        loaded=len(tensors),
        coverage={"tensors": 1.0, "parameters": 1.0, "bytes": 1.0},
        seconds=perf_counter() - began,
        bytes=sum(each.nbytes for each in tensors),
    )


def _optimizer_path(ckpt: Checkpoint, section: str | None) -> Path:
    """Where the state dict of an optimizer lies: what has `param_groups` in it."""
    roots = {
        path[: path.index("param_groups")]: None
        for path, _ in ckpt.index.leaves
        if "param_groups" in path
    }
    found = [root for root in roots if section in (None, "all", name_of(root), *map(str, root[:1]))]
    if not found and section is not None and roots:
        raise UnknownSection(
            ckpt.path,
            expected="one of " + ", ".join(repr(name_of(root)) for root in roots),
            got=f"section {section!r}",
        )
    return _only(found, ckpt, "an optimizer's state (a dict with param_groups)")


def _other_path(target: object, ckpt: Checkpoint, section: str | None) -> Path:
    """The section named, or the only one whose name says that it is for such an object."""
    found = list(_dicts((ckpt.contents.root, ckpt.contents.lens), ()))
    if section is not None:
        chosen = [path for path in found if name_of(path) == section]
        if not chosen:
            raise UnknownSection(
                ckpt.path,
                expected="one of " + ", ".join(repr(name_of(path)) for path in found if path),
                got=f"section {section!r}",
            )
        return chosen[0]
    kind = type(target).__name__.lower()
    is_scheduler = isinstance(target, torch.optim.lr_scheduler.LRScheduler) or "sched" in kind
    word = "scheduler" if is_scheduler else "scaler" if "scaler" in kind else kind
    pattern = re.compile(_WORDS.get(word, re.escape(word)), re.IGNORECASE)
    named = [path for path in found if path and pattern.search(str(path[0]))]
    return _only(named, ckpt, f"a section for a {type(target).__name__}")


def _dicts(raw: Raw, path: Path) -> Iterator[Path]:
    """Paths of the dicts at the top, and of those in lists there (Lightning numbers them)."""
    value, lens = raw[1](raw[0]), raw[1]
    if isinstance(value, Graft):
        lens = value.contents.lens
        value = lens(value.contents.root)
    if isinstance(value, Items | dict):
        if path:
            yield path
        else:
            pairs = value.pairs if isinstance(value, Items) else value.items()
            for key, child in pairs:
                if isinstance(key, str):
                    yield from _dicts((child, lens), (key,))
    elif isinstance(value, list) and len(path) == 1:
        for at, child in enumerate(value):
            yield from _dicts((child, lens), (*path, at))


def _only(found: list[Path], ckpt: Checkpoint, what: str) -> Path:
    if not found:
        raise NothingSelected(
            ckpt.path,
            expected=what,
            got="none",
            remedy="See what it holds with: tensorkeep inspect.",
        )
    if len(found) > 1:
        raise AmbiguousSection(
            ckpt.path,
            expected=what,
            got=" and ".join(repr(name_of(path)) for path in found),
            remedy=f"Name one, as in section={name_of(found[0])!r}.",
        )
    return found[0]


def _fitted(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], subject: str, where: str
) -> dict[str, Any]:
    """The state in the order of this optimizer's parameters. Raises `DoesNotFit`."""
    groups, own = state.get("param_groups"), optimizer.param_groups
    moments = state.get("state")
    if not isinstance(groups, list) or not isinstance(moments, dict):
        raise _misfit(subject, where, "state and param_groups", ", ".join(state))
    if len(groups) != len(own):
        raise _misfit(subject, where, f"{len(own)} parameter groups", str(len(groups)))
    groups = [dict(group) for group in groups]
    for number, (theirs, ours) in enumerate(zip(groups, own, strict=True)):
        place = f"{where}, group {number}"
        numbers = theirs.get("params")
        if not isinstance(numbers, list) or len(numbers) != len(ours["params"]):
            count = len(numbers) if isinstance(numbers, list) else "none"
            raise _misfit(subject, place, f"{len(ours['params'])} parameters", str(count))
        _reorder(theirs, ours, subject, place)
        for index, parameter, label in _members(theirs, ours):
            _check_moments(moments.get(index), parameter, label, subject, place)
    return {**state, "param_groups": groups}


def _reorder(theirs: dict[str, Any], ours: dict[str, Any], subject: str, place: str) -> None:
    """By name, where both know the names: torch itself goes by order alone."""
    names, wanted = theirs.get("param_names"), ours.get("param_names")
    if not isinstance(names, list) or not isinstance(wanted, list) or names == wanted:
        return
    odd = [name for name in wanted if name not in names]
    if odd or len(set(names)) != len(names):
        raise _misfit(subject, place, f"the parameter {odd[:1]}", "MISSING: " + listed(odd))
    number = dict(zip(names, theirs["params"], strict=True))
    theirs["params"], theirs["param_names"] = [number[name] for name in wanted], list(wanted)


def _members(
    theirs: dict[str, Any], ours: dict[str, Any]
) -> Iterator[tuple[object, torch.Tensor, str]]:
    labels = theirs.get("param_names") or ours.get("param_names") or theirs["params"]
    for index, parameter, label in zip(theirs["params"], ours["params"], labels, strict=True):
        yield index, parameter, str(label)


def _check_moments(
    moments: object, parameter: torch.Tensor, label: str, subject: str, place: str
) -> None:
    for key, value in moments.items() if isinstance(moments, dict) else ():
        if key in _LIKE_PARAMETER and isinstance(value, torch.Tensor):
            full, shape = tuple(value.shape), tuple(parameter.shape)
            if value.dim() and full != shape:
                got = f"MISMATCH in shape: {list(full)} in {key!r}"
                raise _misfit(subject, place, f"{list(shape)} for parameter `{label}`", got)


def _misfit(subject: str, where: str, expected: str, got: str) -> DoesNotFit:
    return DoesNotFit(
        subject,
        expected=expected,
        got=got,
        where=where,
        remedy="Make the optimizer of the same parameters in the same groups as when it was saved.",
    )


def _check_keys(target: Any, state: dict[str, Any], subject: str, where: str) -> None:  # noqa: ANN401
    own = target.state_dict()
    lacking = [key for key in own if key not in state] if isinstance(own, dict) else []
    if lacking:
        raise DoesNotFit(
            subject,
            expected=f"the state of a {type(target).__name__}",
            got=f"MISSING: {listed(lacking)}",
            where=where,
            remedy="Name the section that holds it with section=.",
        )


def _take(target: Any, state: dict[str, Any], subject: str, where: str) -> None:  # noqa: ANN401
    back = [_way_back(each) for each in _parts(target)]
    options = _options(target)
    try:
        target.load_state_dict(state)
        _check_options(target, options, subject, where)
    except BaseException as error:
        for each in back:
            each()
        if isinstance(error, DoesNotFit) or not isinstance(error, Exception):
            raise
        got = f"{type(error).__name__}: {str(error).partition(chr(10))[0].rstrip('.')}"
        raise DoesNotFit(
            subject,
            expected=f"what a {type(target).__name__} takes",
            got=got,
            where=where,
            remedy="Nothing was changed.",
        ) from error


def _parts(target: Any) -> Iterator[Any]:  # noqa: ANN401
    """What loading may change: the object, its optimizer, the schedulers inside a scheduler."""
    yield target
    optimizer = getattr(target, "optimizer", None)
    if isinstance(optimizer, torch.optim.Optimizer):
        yield optimizer
    if isinstance(target, torch.optim.lr_scheduler.LRScheduler):
        for each in getattr(target, "_schedulers", ()):
            yield from _parts(each)


def _way_back(target: Any) -> Callable[[], None]:  # noqa: ANN401
    saved = {key: copy.copy(value) for key, value in vars(target).items()}
    if not isinstance(target, torch.optim.Optimizer):
        return lambda: vars(target).update(saved)
    moments, groups = target.state, target.param_groups
    options = [dict(group) for group in groups]

    def back() -> None:
        vars(target).update(saved)
        target.state, target.param_groups = moments, groups  # schedulers hold the very groups
        for group, before in zip(groups, options, strict=True):
            group.clear()
            group.update(before)

    return back


def _options(target: object) -> list[set[str]]:
    """Of each group of an optimizer, the options that its class has given it."""
    if not isinstance(target, torch.optim.Optimizer):
        return []
    return [target.defaults.keys() & group.keys() for group in target.param_groups]


def _check_options(target: Any, options: list[set[str]], subject: str, where: str) -> None:  # noqa: ANN401
    """Without one of its options an optimizer would fail at its next step."""
    for number, before in enumerate(options):
        lacking = sorted(before - target.param_groups[number].keys())
        if lacking:
            raise DoesNotFit(
                subject,
                expected=f"the options of {type(target).__name__}",
                got=f"those of another optimizer; MISSING: {listed(lacking)}",
                where=f"{where}, group {number}",
                remedy="Make the optimizer of the class that was saved.",
            )


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
