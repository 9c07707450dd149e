"""Tensors that are ready into a module: all of them, or the module stays as it was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tensorkeep.errors import DoesNotFit
from tensorkeep.live.layout import Layout, own_names
from tensorkeep.live.undo import Undo
from tensorkeep.live.wishes import Wish

_Copy = tuple[torch.Tensor, torch.Tensor]


@dataclass(slots=True)
class Filling:
    """`ready`: tensors by name, as `wishes` says, and what goes to modules that load themselves.

    `extra` goes only to those: values, and tensors that the module itself does not list.
    `versions` by module. `missing`, `unexpected` and `bent` are what those modules say of names:
    not given, not taken, of another shape.
    """

    layout: Layout
    wishes: Mapping[str, Wish]
    ready: Mapping[str, torch.Tensor]
    extra: Mapping[str, object]
    versions: Mapping[str, dict[str, object]]
    assign: bool
    undo: Undo
    subject: str
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    bent: list[str] = field(default_factory=list)
    _objects: dict[str, torch.Tensor] = field(default_factory=dict)
    _copies: list[_Copy] = field(default_factory=list)

    def run(self) -> None:
        """Everything but the copies into memory that is there. Raises `DoesNotFit`."""
        owners = {self.layout.shared[name]: name for name in reversed([*self.ready])}
        states: dict[str, OrderedDict[str, Any]] = {p: OrderedDict() for p, _ in self._kept()}
        for name, tensor in self.layout.tensors.items():
            given = owners.get(self.layout.shared[name])
            prefix = self.layout.prefix_of(name)
            if given is not None and prefix is not None:
                states[prefix][name] = self._given(name, tensor, given)
            elif given is not None:
                self._direct(name, tensor, given)
        for name, value in self.extra.items():
            prefix = self.layout.prefix_of(name)
            if prefix is not None:
                states[prefix][name] = value
            elif isinstance(value, torch.Tensor):
                self._compound(name, value)
        for prefix, module in self.layout.special:
            self._special(prefix, module, states[prefix])

    def _kept(self) -> list[tuple[str, nn.Module]]:
        """The modules that load themselves, each remembered as it is."""
        for _, module in self.layout.special:
            self.undo.keep(module)
        return self.layout.special

    def finish(self) -> None:
        """The copies. They cannot fail: shapes and dtypes are known to agree.

        What interrupts them waits until they are done, and nothing is taken back then: half a model
        would be worse than a second's delay.
        """
        try:
            _copy_all(self._copies)
            self.undo.forget()
        except BaseException:
            self.undo.forget()
            _copy_all(self._copies)
            raise

    def _direct(self, name: str, tensor: torch.Tensor, given: str) -> None:
        new, wish = self.ready[given], self.wishes[given]
        if wish.fresh and (tensor.is_meta or self.assign):
            self.undo.put(*self.layout.places[name], self._object(name, tensor, new))
        elif name != self.layout.shared[name]:
            return  # the same object as one that was filled
        elif wish.fresh:
            self.undo.swap(tensor, new)
        elif is_plain(tensor):
            self._copies.append((tensor, new))
        else:
            self._copy_odd(name, tensor, new)

    def _compound(self, name: str, new: torch.Tensor) -> None:
        """A tensor that is put together of several: sparse, say."""
        tensor = self.layout.tensors[name]
        if tensor.is_meta or self.assign:
            self.undo.put(*self.layout.places[name], self._object(name, tensor, new))
        else:
            self._copy_odd(name, tensor, new)

    def _copy_odd(self, name: str, tensor: torch.Tensor, new: torch.Tensor) -> None:
        """Into a tensor that may refuse it: while everything can still be taken back."""
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            old = tensor.detach().clone()
            self.undo.add(lambda: _copy_all([(tensor, old)]))
            try:
                tensor.copy_(new)
            except RuntimeError as error:
                raise self._failed(f"{name}.", f"{type(error).__name__}: {error}") from error

    def _object(self, name: str, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """What stands in the module in the place of `old`: one for all names of a parameter."""
        owner = self.layout.shared[name]
        if owner not in self._objects:
            self._objects[owner] = successor(old, new)
        return self._objects[owner]

    def _special(self, prefix: str, module: nn.Module, state: OrderedDict[str, Any]) -> None:
        errors: list[str] = []
        try:
            if self.layout.own and not prefix:
                self._by_its_own(module, state)
            else:
                self._load(module, prefix, state, errors)
        except Exception as error:
            raise self._failed(prefix, f"{type(error).__name__}: {error}") from error
        for text in errors:
            name = text.removeprefix("size mismatch for ").partition(":")[0]
            if not text.startswith("size mismatch for ") or name not in state:
                raise self._failed(prefix, text)
            self.bent.append(name)

    def _given(self, name: str, tensor: torch.Tensor, given: str) -> torch.Tensor:
        new, wish = self.ready[given], self.wishes[given]
        if wish.fresh and not tensor.is_meta and not self.assign:
            if name == self.layout.shared[name]:
                self.undo.swap(tensor, new)
            return new
        return self._object(name, tensor, new) if wish.fresh else new

    def _by_its_own(self, module: nn.Module, state: OrderedDict[str, Any]) -> None:
        for name, child in module.named_modules(remove_duplicate=False):
            self._put_meta(child, f"{name}." if name else "", state)
        # It need not know of `assign`, which is younger than many of them.
        options = {"assign": True} if self.assign else {}
        told = module.load_state_dict(state, strict=False, **options)
        self.missing += getattr(told, "missing_keys", [])
        self.unexpected += getattr(told, "unexpected_keys", [])

    def _load(
        self, module: nn.Module, prefix: str, state: dict[str, Any], errors: list[str]
    ) -> None:
        """As `nn.Module.load_state_dict` goes about it, from `module` on down."""
        about = dict(self.versions.get(prefix[:-1], {}))
        if self.assign or self._all_meta(module, prefix):
            about["assign_to_params_buffers"] = True
        else:
            self._put_meta(module, prefix, state)
        told = (self.missing, self.unexpected, errors)
        module._load_from_state_dict(state, prefix, about, True, *told)
        for key, child in module._modules.items():
            if child is not None:
                inner = f"{prefix}{key}."
                below = {name: value for name, value in state.items() if name.startswith(inner)}
                self._load(child, inner, below, errors)
        for hook in module._load_state_dict_post_hooks.values():
            keys = nn.modules.module._IncompatibleKeys(self.missing, self.unexpected)
            hook(module, keys)

    def _all_meta(self, module: nn.Module, prefix: str) -> bool:
        named = [self.layout.tensors.get(prefix + key) for key in own_names(module)]
        return bool(named) and all(_is_meta(each) for each in named)

    def _put_meta(self, module: nn.Module, prefix: str, state: Mapping[str, Any]) -> None:
        """Beside real tensors, those on meta get theirs first: only all can be assigned."""
        for key in list(own_names(module)):
            old = self.layout.tensors.get(prefix + key)
            new = state.get(prefix + key)
            if _is_meta(old) and isinstance(new, torch.Tensor):
                setattr(module, key, new)

    def _failed(self, prefix: str, got: str) -> DoesNotFit:
        where = prefix[:-1] or self.layout.subject
        return DoesNotFit(
            self.subject,
            expected=f"what {self.layout.subject} takes",
            got=got.partition("\n")[0].rstrip("."),
            where=where,
            remedy="The module's own code refused it; nothing was changed.",
        )


def _is_meta(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.is_meta


def successor(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`new` as what `old` is to its module: a parameter with its flags, or a buffer."""
    if not isinstance(old, nn.Parameter):
        return new
    can = new.is_floating_point() or new.is_complex()
    made = nn.Parameter(new, requires_grad=old.requires_grad and can)
    vars(made).update(vars(old))
    return made


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a copy into it cannot fail: memory of its own for each element, no class of its own.

    Some in the place of a tensor's class compute something else when they are copied into.
    """
    kinds = (torch.Tensor, nn.Parameter, nn.Buffer)
    repeats = any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    return type(tensor) in kinds and not repeats and not tensor.is_inference()


def _copy_all(todo: Sequence[_Copy]) -> None:
    for target, source in todo:
        with torch.inference_mode(target.is_inference()), torch.no_grad():
            target.copy_(source)
