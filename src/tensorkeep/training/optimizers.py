"""An optimizer's state by the names of the parameters, not by their numbers.

torch numbers parameters in the order of the groups; two that change places keep the other's
moments without a word. Here each parameter's state goes by its name, so that parameters that were
reordered or regrouped get their own state back. The options of a group (its learning rate, its
weight decay) are those that its parameters had; parameters that come together out of groups with
different options are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tensorkeep.errors import BadArgument, DoesNotFit

Tree = dict[str, Any]
Group = dict[str, Any]
_NOT_OPTIONS = ("params", "param_names")


class TrackedOptimizer:
    """`modules`: those of the run by name; parameters get their names there."""

    kind = "optimizer"

    def __init__(
        self, name: str, optimizer: torch.optim.Optimizer, modules: Mapping[str, torch.nn.Module]
    ) -> None:
        self.name, self.optimizer, self._modules = name, optimizer, modules

    def capture(self) -> Tree:
        """See `Tracked`."""
        names = self._names()
        return {
            "class": type(self.optimizer).__qualname__,
            "groups": [
                {"params": [names[id(p)] for p in group["params"]], "options": _options(group)}
                for group in self.optimizer.param_groups
            ],
            "state": {
                names[id(param)]: dict(state)
                for param, state in self.optimizer.state.items()
                if id(param) in names
            },
        }

    def _names(self) -> dict[int, str]:
        """By the identity of the parameter. Raises `BadArgument` if one has no name."""
        used = [p for group in self.optimizer.param_groups for p in group["params"]]
        found: dict[int, list[tuple[str, str]]] = {}
        for module, target in self._modules.items():
            for name, param in target.named_parameters(remove_duplicate=True):
                found.setdefault(id(param), []).append((module, name))
        owners = {found[id(p)][0][0] for p in used if id(p) in found}
        names = {}
        for at, (param, given) in enumerate(zip(used, self._given(), strict=True)):
            if id(param) in found:
                module, name = found[id(param)][0]
                names[id(param)] = name if len(owners) == 1 else f"{module}.{name}"
            elif given is not None:
                names[id(param)] = given
            else:
                raise self._nameless(at, param)
        if len(set(names.values())) != len(names):
            raise BadArgument(self.name, expected="a name for each parameter", got="one name twice")
        return names

    def _given(self) -> Iterator[str | None]:
        """Names that the optimizer was given itself (torch 2.6 on)."""
        for group in self.optimizer.param_groups:
            yield from group.get("param_names") or [None] * len(group["params"])

    def _nameless(self, at: int, param: torch.Tensor) -> BadArgument:
        return BadArgument(
            self.name,
            expected="parameters of tracked modules",
            got=f"parameter {at}, of shape {list(param.shape)}, which is in none of them",
            remedy="Track the module too, or make the optimizer of named_parameters().",
        )

    def check(self, tree: Tree) -> None:
        """See `Tracked`."""
        self._plan(tree)

    def _plan(self, tree: Tree) -> list[Group]:
        """The options of each group of now. Raises `DoesNotFit`."""
        own = type(self.optimizer).__qualname__
        if tree["class"] != own:
            raise DoesNotFit(
                self.name,
                expected=f"the state of {own}",
                got=f"that of {tree['class']}",
                remedy="Make the optimizer that the run had, or leave it untracked to start anew.",
            )
        names = self._names()
        saved = {name: at for at, group in enumerate(tree["groups"]) for name in group["params"]}
        self._same(set(names.values()), set(saved))
        self._shapes(tree, names)
        return [
            self._group_options(tree, at, [saved[names[id(p)]] for p in group["params"]])
            for at, group in enumerate(self.optimizer.param_groups)
        ]

    def _same(self, own: set[str], saved: set[str]) -> None:
        for have, other, where in ((own, saved, "checkpoint"), (saved, own, "optimizer")):
            lacking = sorted(have - other)
            if lacking:
                more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
                raise DoesNotFit(
                    self.name,
                    expected="the same parameters in the optimizer and in the checkpoint",
                    got=f"{', '.join(lacking[:3])}{more} not in the {where}",
                    remedy="Freeze and name parameters as the run did.",
                )

    def _shapes(self, tree: Tree, names: Mapping[int, str]) -> None:
        params = {names[id(p)]: p for g in self.optimizer.param_groups for p in g["params"]}
        for name, state in tree["state"].items():
            for key, value in state.items():
                if _is_moment(key, value, params[name]) and value.shape != params[name].shape:
                    raise DoesNotFit(
                        f"{self.name}.{name}.{key}",
                        expected=f"shape {list(params[name].shape)}, as its parameter",
                        got=f"{list(value.shape)}",
                        remedy="Build the model as the run did.",
                    )

    def _group_options(self, tree: Tree, at: int, groups: list[int]) -> Group:
        options = [tree["groups"][which]["options"] for which in sorted(set(groups))]
        if not options:
            saved = tree["groups"]
            return _options(saved[at]["options"]) if at < len(saved) else {}
        for key in {key for each in options for key in each}:
            values = [each.get(key) for each in options]
            if any(not _equal(value, values[0]) for value in values):
                raise DoesNotFit(
                    f"{self.name}, group {at}",
                    expected="parameters that had the same options",
                    got=f"{key} = {' and '.join(str(value) for value in values)}",
                    remedy="Group the parameters as the run did.",
                )
        return _options(options[0])

    def restore(self, tree: Tree) -> None:
        """See `Tracked`."""
        plan, names = self._plan(tree), self._names()
        state = self.optimizer.state
        state.clear()
        for group, options in zip(self.optimizer.param_groups, plan, strict=True):
            _set_options(group, options)
            for param in group["params"]:
                saved = tree["state"].get(names[id(param)])
                if saved is not None:
                    state[param] = {k: _moved(k, v, param, group) for k, v in saved.items()}


def _is_moment(key: str, value: object, param: torch.Tensor) -> bool:
    """Whether a part of the state has the shape of its parameter, as far as can be known."""
    several = isinstance(value, torch.Tensor) and value.numel() > 1 and key != "step"
    return several and value.dim() == param.dim()  # type: ignore[attr-defined]


def _options(group: Group) -> Group:
    return {key: value for key, value in group.items() if key not in _NOT_OPTIONS}


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)


def _set_options(group: Group, options: Group) -> None:
    for key, value in options.items():
        present = group.get(key)
        if isinstance(present, torch.Tensor) and isinstance(value, torch.Tensor | float | int):
            # Graphs that were captured or compiled hold this very tensor.
            with torch.no_grad():
                present.copy_(torch.as_tensor(value))
        else:
            group[key] = value.clone() if isinstance(value, torch.Tensor) else value


def _moved(key: str, value: object, param: torch.Tensor, group: Group) -> object:
    """Where torch has it: beside the parameter, but counts of steps on the CPU unless captured."""
    if isinstance(value, torch.Tensor):
        stays = key == "step" and not (group.get("capturable") or group.get("fused"))
        # What was read is nobody else's: on the CPU it need not be copied.
        return value if stays else value.to(param.device)
    if isinstance(value, list):
        return [_moved("", each, param, group) for each in value]
    if isinstance(value, dict):
        return {name: _moved("", each, param, group) for name, each in value.items()}
    return value
