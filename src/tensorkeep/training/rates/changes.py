"""Changes that are planned first and then made: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from tensorkeep.errors import BadArgument

Group = dict[str, Any]
Undo = Callable[[], object]


def like(old: object, value: float) -> Any:  # noqa: ANN401
    """A rate of the kind that it takes the place of: a tensor for a tensor."""
    if isinstance(old, torch.Tensor):
        return torch.full_like(old, value, requires_grad=False)
    return value


def rates(values: Sequence[Any]) -> list[float]:
    """Rates as numbers, tensors too."""
    return [float(value) for value in values]


class Changes:
    """Of an optimizer's groups and of schedulers; nothing changes before `make`."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.groups: list[Group] = optimizer.param_groups
        self._planned: list[tuple[Any, str, Any]] = []
        self.notes: list[str] = []

    def group(self, at: int, key: str, value: float) -> None:
        """Group `at` shall have `value` under `key`: in the tensor that is there, if one is."""
        self._planned.append((self.groups[at], key, value))

    def listed(self, scheduler: object, name: str, values: Sequence[float]) -> None:
        """A list of rates of a scheduler."""
        old = getattr(scheduler, name)
        made = [like(a, b) for a, b in zip(old, values, strict=True)]
        self._planned.append((scheduler, name, made))

    def attribute(self, scheduler: object, name: str, value: float) -> None:
        """A number of a scheduler."""
        self._planned.append((scheduler, name, value))

    def _require_tensors(self) -> None:
        """Raises `BadArgument` for tensors that cannot hold what is planned."""
        wanted: dict[tuple[int, str], float] = {}
        for target, key, value in self._planned:
            held = target.get(key) if isinstance(target, dict) else None
            if isinstance(held, torch.Tensor):
                if held.is_inference():
                    # torch would fill it and then say that it may not be filled.
                    raise _unfit(key, "one made in inference mode")
                if wanted.setdefault((id(held), key), value) != value:
                    got = f"one for several, that is to be {wanted[id(held), key]} and {value}"
                    raise _unfit(key, got)

    def make(self) -> None:
        """Make them. If one fails, those before it are undone and its error is raised."""
        self._require_tensors()
        done: list[Undo] = []
        try:
            for target, key, value in self._planned:
                undo = _undo(target, key)
                _set(target, key, value)
                done.append(undo)
        except BaseException:
            for undo in reversed(done):
                undo()
            raise


def _unfit(key: str, got: str) -> BadArgument:
    return BadArgument(
        f"set_lr, {key!r} of a parameter group",
        expected="a tensor of its own for each group, that can be changed",
        got=got,
        remedy=f"Give each group its own: group[{key!r}] = group[{key!r}].clone().",
    )


def _set(target: Any, key: str, value: Any) -> None:  # noqa: ANN401
    if not isinstance(target, dict):
        setattr(target, key, value)
    elif isinstance(target.get(key), torch.Tensor):
        # Graphs that were captured or compiled hold this very tensor.
        with torch.no_grad():
            target[key].fill_(value)
    else:
        target[key] = value


def _undo(target: Any, key: str) -> Undo:  # noqa: ANN401
    if not isinstance(target, dict):
        before = getattr(target, key)
        return lambda: setattr(target, key, before)
    if key not in target:
        return lambda: target.pop(key, None)
    old = target[key]
    value = float(old) if isinstance(old, torch.Tensor) else old
    return lambda: _set(target, key, value)
