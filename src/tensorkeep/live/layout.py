"""Where a module keeps the tensors of its state dict, and which parts of it load in their own way.

Most modules hold a tensor under a name and want it replaced. Some have more to say: hooks that
rename what an older version wrote, batch norm that counts, parametrizations, packed weights, lazy
parameters. Those, and everything below them, are left to what they bring along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tensorkeep.errors import BadArgument
from tensorkeep.live.modules import rebuilt
from tensorkeep.matching.specs import Spec, Wanted

Place = tuple[nn.Module, str]


@dataclass(slots=True)
class Layout:
    """One module. `tensors` is its state dict; `places` says for its names where they stand.

    `special`: prefixes (with their dot) and modules that load themselves; `own` is set if that is
    by a `load_state_dict` of the whole module's. `values` are entries that are no tensors, `lazy`
    those that have no shape yet. `shared`: for each tensor the first name of the same parameter.
    """

    module: nn.Module
    subject: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    special: list[tuple[str, nn.Module]] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    lazy: dict[str, None] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    own: bool = False
    _prefixes: frozenset[str] = frozenset()

    def is_special(self, name: str) -> bool:
        """Whether the tensor of this name belongs to a module that loads itself."""
        return self.prefix_of(name) is not None

    def prefix_of(self, name: str) -> str | None:
        """The prefix of the module that loads itself and that the name lies in, if there is one."""
        known = self._prefixes
        if not known:
            return None
        at = 0
        while at <= len(name):  # a look for each part of the name, however many such modules
            if name[:at] in known:
                return name[:at]
            at = name.find(".", at) + 1 or len(name) + 1
        return None

    def wanted(self, shapes: dict[str, tuple[int, ...]] | None = None) -> Wanted:
        """What is to be filled. `shapes`: of lazy parameters that are known by now."""
        known = shapes or {}
        found: dict[str, Spec] = {}
        for name, tensor in self.tensors.items():
            if name in self.lazy and name not in known:
                continue
            shape = known[name] if name in self.lazy else tuple(tensor.shape)
            first = self.shared[name]
            kind = str(tensor.dtype).removeprefix("torch.")
            found[name] = Spec(kind, shape, None if first == name else first)
        return Wanted(self.subject, found, frozenset(rebuilt(self.module)))


def layout_of(module: nn.Module) -> Layout:
    """How `module` is laid out. Raises `BadArgument` for one that keeps its weights elsewhere."""
    found = Layout(module, type(module).__qualname__)
    firsts: dict[int, str] = {}
    state, plain = _state(module)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            found.values.append(name)
            continue
        found.tensors[name] = value
        found.shared[name] = firsts.setdefault(id(value), name)
        if is_lazy(value):
            found.lazy[name] = None
    _refuse_offloaded(module)
    _walk(module, "", found)
    found.own = type(module).load_state_dict is not nn.Module.load_state_dict
    found._prefixes = frozenset(prefix for prefix, _ in found.special)
    strangers = [n for n in found.tensors if n not in found.places and not found.is_special(n)]
    if found.own or strangers or not plain:  # it names them otherwise than its parts do
        found.special, found.places = [("", module)], {}
        found._prefixes = frozenset({""})
    return found


def _state(module: nn.Module) -> tuple[dict[str, object], bool]:
    """Its state dict, and whether the tensors in it are the module's own objects."""
    try:
        return module.state_dict(keep_vars=True), True
    except TypeError:
        return module.state_dict(), False  # one of its own, that takes no options


def _walk(module: nn.Module, prefix: str, found: Layout) -> None:
    if loads_itself(module):
        found.special.append((prefix, module))
        return
    for key in own_names(module):
        found.places[prefix + key] = (module, key)
    for key, child in module._modules.items():
        if child is not None:
            _walk(child, f"{prefix}{key}.", found)


def own_names(module: nn.Module) -> Iterator[str]:
    """Parameters and persistent buffers of the module alone."""
    for key, parameter in module._parameters.items():
        if parameter is not None:
            yield key
    for key, buffer in module._buffers.items():
        if buffer is not None and key not in module._non_persistent_buffers_set:
            yield key


def loads_itself(module: nn.Module) -> bool:
    """Whether `load_state_dict` does more for it than to copy tensors."""
    kind = type(module)
    return (
        kind._load_from_state_dict is not nn.Module._load_from_state_dict
        or "_load_from_state_dict" in vars(module)
        or kind.set_extra_state is not nn.Module.set_extra_state
        or bool(module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks)
        or any(each is not None and is_lazy(each) for each in module._parameters.values())
    )


def _refuse_offloaded(module: nn.Module) -> None:
    """accelerate's hooks put the weights that they keep in the place of what is loaded."""
    for name, child in module.named_modules():
        hook = getattr(child, "_hf_hook", None)
        hooks = getattr(hook, "hooks", (hook,))
        if any(getattr(each, "offload", False) for each in hooks):
            raise BadArgument(
                f"module {name!r}" if name else "the module",
                expected="a module that keeps its own weights",
                got="one that accelerate offloads, which brings its copies back at each call",
                remedy="Take the hooks off first: accelerate.hooks.remove_hook_from_submodules.",
            )
