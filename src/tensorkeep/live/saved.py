"""A module that was saved whole, without its class: what its state dict holds, and its settings."""

from __future__ import annotations

from collections import OrderedDict

import torch

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
            elif isinstance(value, torch.Tensor):
                found[name] = value.detach()
        return found
