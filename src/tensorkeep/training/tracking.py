"""Objects that have state: which kind each is, its state as a tree, and the way back.

A kind gives a tree (`capture`), says what does not fit before anything is changed (`check`), and
puts a tree back in place (`restore`). Trees hold tensors, numbers, text and containers.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from tensorkeep.errors import BadArgument, DoesNotFit
from tensorkeep.training.optimizers import TrackedOptimizer
from tensorkeep.training.randomness import python_state, python_tuple

Tree = dict[str, Any]
_EXTRA = "_extra_state"


class Tracked(Protocol):
    """One object that a run keeps the state of."""

    kind: str

    def capture(self) -> Tree:
        """Its state now; tensors are its own and not copied."""

    def check(self, tree: Tree) -> None:
        """Raise `DoesNotFit` if the state cannot be put into the object. Changes nothing."""

    def restore(self, tree: Tree) -> None:
        """Put the state back, in place."""


def tracked(name: str, target: object, modules: Mapping[str, torch.nn.Module]) -> Tracked:
    """`target` under the name that the run knows it by.

    `modules`: those of the run, for the names of parameters. Raises `BadArgument` for what has no
    state that could be put back.
    """
    if isinstance(target, torch.nn.Module):
        return TrackedModule(name, target)
    if isinstance(target, torch.optim.Optimizer):
        return TrackedOptimizer(name, target, modules)
    if isinstance(target, torch.Generator | random.Random) or _is_numpy(target):
        return TrackedGenerator(name, target)
    if type(target) is dict:
        return TrackedDict(name, target)
    if all(callable(getattr(target, each, None)) for each in ("state_dict", "load_state_dict")):
        return TrackedObject(name, target)
    raise BadArgument(
        f"track({name}=...)",
        expected="a module, an optimizer, a generator, a dict, or an object with state_dict() and "
        "load_state_dict()",
        got=f"a {type(target).__module__}.{type(target).__qualname__}",
        remedy="Give its class these two methods, or track the parts of it that have them.",
    )


def _is_numpy(target: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(
        target, numpy.random.Generator | numpy.random.RandomState
    )


class TrackedModule:
    """A module: its state dict, versions, and the buffers that a state dict leaves out."""

    kind = "module"

    def __init__(self, name: str, module: torch.nn.Module) -> None:
        self.name, self.module = name, module

    def capture(self) -> Tree:
        """See `Tracked`."""
        state = self.module.state_dict()
        versions: Mapping[str, Any] = getattr(state, "_metadata", {})
        tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        return {
            "state": tensors,
            "extra": {key: value for key, value in state.items() if key not in tensors},
            "buffers": dict(self._left_out()),
            "versions": {key: dict(value) for key, value in versions.items()},
            "evaluating": [n for n, module in self.module.named_modules() if not module.training],
        }

    def _left_out(self) -> dict[str, torch.Tensor]:
        found = {}
        for prefix, module in self.module.named_modules():
            for name in sorted(module._non_persistent_buffers_set):
                buffer = module._buffers.get(name)
                if buffer is not None:
                    found[f"{prefix}.{name}" if prefix else name] = buffer
        return found

    def check(self, tree: Tree) -> None:
        """See `Tracked`."""
        own = {k: v for k, v in self.module.state_dict().items() if isinstance(v, torch.Tensor)}
        _same_names(self.name, "tensors", own, tree["state"])
        _same_names(self.name, "non-persistent buffers", self._left_out(), tree["buffers"])
        for name, tensor in [*own.items(), *self._left_out().items()]:
            found = tree["state"].get(name, tree["buffers"].get(name))
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                raise DoesNotFit(
                    f"{self.name}.{name}",
                    expected=f"{_spec(tensor)}, as the module has it",
                    got=f"{_spec(found)} in the checkpoint",
                    remedy="Build the model as the run did, or load the weights with "
                    "tk.load_into and start a new run.",
                )

    def restore(self, tree: Tree) -> None:
        """See `Tracked`."""
        state = {**tree["state"], **tree["extra"]}
        versioned = _Versioned(state)
        versioned._metadata = tree["versions"]
        self.module.load_state_dict(versioned)
        left_out = self._left_out()
        with torch.no_grad():
            for name, value in tree["buffers"].items():
                left_out[name].copy_(value)
        evaluating = set(tree["evaluating"])
        for name, module in self.module.named_modules():
            module.training = name not in evaluating


class _Versioned(dict[str, Any]):
    """A state dict that carries the versions of its modules, as torch's own do."""

    _metadata: Mapping[str, Any]


def _spec(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _same_names(
    name: str, what: str, own: Mapping[str, object], saved: Mapping[str, object]
) -> None:
    if own.keys() == saved.keys():
        return
    missing = [each for each in own if each not in saved]
    unexpected = [each for each in saved if each not in own]
    parts = [
        f"{len(names)} {label} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, label in ((missing, "missing"), (unexpected, "unexpected"))
        if names
    ]
    raise DoesNotFit(
        name,
        expected=f"the {len(own)} {what} of the object that is tracked",
        got=" and ".join(parts),
        remedy="Build it as the run did, or load the weights with tk.load_into.",
    )


class TrackedObject:
    """Anything with `state_dict` and `load_state_dict`: schedulers, scalers, loaders, yours."""

    kind = "object"

    def __init__(self, name: str, target: Any) -> None:  # noqa: ANN401
        self.name, self.target = name, target
        self.kind = "scheduler" if _is_scheduler(target) else "object"

    def capture(self) -> Tree:
        """See `Tracked`."""
        made = {"class": _class_of(self.target), "state": self.target.state_dict()}
        within = _parts(self.target) if self.kind == "scheduler" else []
        return {**made, "parts": within} if within else made

    def check(self, tree: Tree) -> None:
        """See `Tracked`."""
        if tree["class"] != _class_of(self.target):
            raise DoesNotFit(
                self.name,
                expected=f"the state of a {_class_of(self.target)}",
                got=f"that of a {tree['class']}",
                remedy="Track the object that the run tracked under this name.",
            )

    def restore(self, tree: Tree) -> None:
        """See `Tracked`."""
        self.target.load_state_dict(tree["state"])


def _is_scheduler(target: object) -> bool:
    return isinstance(target, torch.optim.lr_scheduler.LRScheduler)


def _parts(scheduler: Any) -> list[Tree]:  # noqa: ANN401
    """The classes of the schedulers that one is made of; their states do not say them."""
    own = getattr(scheduler, "_schedulers", ())
    return [{"class": _class_of(each), "parts": _parts(each)} for each in own]


def _class_of(target: object) -> str:
    return f"{type(target).__module__}.{type(target).__qualname__}"


class TrackedDict:
    """A dict of the user's own: counters, a history."""

    kind = "dict"

    def __init__(self, name: str, target: dict[Any, Any]) -> None:
        self.name, self.target = name, target

    def capture(self) -> Tree:
        """See `Tracked`."""
        return {"state": dict(self.target)}

    def check(self, tree: Tree) -> None:
        """See `Tracked`."""
        if not isinstance(tree["state"], dict):
            raise DoesNotFit(self.name, expected="a dict", got=type(tree["state"]).__name__)

    def restore(self, tree: Tree) -> None:
        """See `Tracked`."""
        self.target.clear()
        self.target.update(tree["state"])


class TrackedGenerator:
    """A generator of random numbers of torch's, numpy's or Python's."""

    kind = "generator"

    def __init__(self, name: str, target: Any) -> None:  # noqa: ANN401
        self.name, self.target = name, target

    def capture(self) -> Tree:
        """See `Tracked`."""
        return {"class": _class_of(self.target), "state": self._state()}

    def _state(self) -> object:
        if isinstance(self.target, torch.Generator):
            return self.target.get_state()
        if isinstance(self.target, random.Random):
            return python_state(self.target)
        if hasattr(self.target, "bit_generator"):
            return self.target.bit_generator.state
        return self.target.get_state(legacy=False)

    def check(self, tree: Tree) -> None:
        """See `Tracked`."""
        TrackedObject(self.name, self.target).check(tree)
        kind = tree["state"].get("bit_generator") if isinstance(tree["state"], dict) else None
        own = getattr(self.target, "bit_generator", None)
        if kind is not None and own is not None and kind != type(own).__name__:
            raise DoesNotFit(self.name, expected=f"a {type(own).__name__}", got=f"a {kind}")

    def restore(self, tree: Tree) -> None:
        """See `Tracked`."""
        state = tree["state"]
        if isinstance(self.target, torch.Generator):
            self.target.set_state(state)
        elif isinstance(self.target, random.Random):
            self.target.setstate(python_tuple(state))
        elif hasattr(self.target, "bit_generator"):
            self.target.bit_generator.state = state
        else:
            self.target.set_state(state)
