"""A module that was saved whole, without its class: what its state dict holds, and its settings."""

from __future__ import annotations

from collections import OrderedDict

import torch

from tensorkeep.errors import InertValue
from tensorkeep.formats.contents import Inert


class SavedModule(Inert):
    """An `nn.Module` of the file. It cannot be called; `state_dict()` gives its tensors.

    `type` is the class as the file names it; `children` its parameters, buffers and modules by
    name; `attributes` the rest of what it holds, such as settings. `doubt` says why its class could
    give another state dict, or is "".
    """

    __slots__ = ("attributes", "children", "doubt", "training", "type")

    def __init__(self, type_: str, *, training: bool) -> None:
        super().__init__(f"module {type_}, not built: its state_dict() is here")
        self.type = type_
        self.training = training
        self.doubt = ""
        self.children: dict[str, object] = {}
        self.attributes: dict[str, object] = {}

    def state_dict(self) -> OrderedDict[str, torch.Tensor]:
        """Names and tensors in the order of the module's own."""
        found: OrderedDict[str, torch.Tensor] = OrderedDict()
        stack: list[tuple[str, object, frozenset[int]]] = [("", self, frozenset())]
        while stack:
            name, value, above = stack.pop()
            if isinstance(value, SavedModule) and id(value) not in above:
                inside = above | {id(value)}
                for key, child in reversed(value.children.items()):
                    stack.append((f"{name}.{key}" if name else key, child, inside))
            elif isinstance(value, torch.nn.Module):
                found.update(value.state_dict(prefix=f"{name}."))
            elif isinstance(value, torch.Tensor):
                found[name] = value.detach()
        return found

    def __getattr__(self, name: str) -> object:
        raise _unknown(self.__class__, self.__slots__, "type", self, name)


class Withheld(Inert):
    """What stands where the file wants an object that nobody trusts; `name` is its class.

    It can be kept, compared and printed. Its attributes are not there: `InertValue` says why.
    """

    __slots__ = ("name",)

    def __init__(self, name: str, instead_of: Inert) -> None:
        super().__init__(instead_of.why, instead_of.node, unread=instead_of.unread)
        self.name = name

    def __repr__(self) -> str:
        return f"<not made: {super().__repr__().strip('<>')}>"

    def __getattr__(self, name: str) -> object:
        raise _unknown(self.__class__, self.__slots__, "name", self, name)


def _unknown(
    kind: type, slots: tuple[str, ...], named: str, value: object, name: str
) -> AttributeError:
    """What to raise for an attribute that is not there."""
    if name.startswith("__") or name in slots or name in Inert.__slots__:
        return AttributeError(name)  # copying and pickling ask for these before anything is set
    from tensorkeep.live.trusting import can_be_trusted  # what is known of names is long

    whose = str(object.__getattribute__(value, named))
    return InertValue(
        f"{kind.__name__} {whose!r}",
        expected=f"an object with {name!r}",
        got="one that was not made, since nobody named its class",
        remedy=f"If you trust its code, trust it by name: trust=[{whose!r}]."
        if can_be_trusted(whose)
        else "",
    )
