"""A small network with what real ones have, as names and shapes, and changes of names."""

from __future__ import annotations

from torch import nn

from tensorkeep.matching.rules import words
from tensorkeep.matching.specs import Spec


def specs(module):
    """What a module or a state dict looks like from outside."""
    tensors = (module if isinstance(module, dict) else module.state_dict()).items()
    return {n: Spec(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in tensors}


class Block(nn.Module):
    def __init__(self, wide=8):
        super().__init__()
        self.attention = nn.ModuleDict({n: nn.Linear(wide, wide) for n in ("q", "k", "v")})
        self.LayerNorm = nn.LayerNorm(wide)
        self.fc1, self.fc2 = nn.Linear(wide, 32), nn.Linear(32, wide)

    def forward(self, x):
        for one in self.attention.values():
            x = one(x)
        return self.fc2(self.fc1(self.LayerNorm(x)))


class Net(nn.Module):
    def __init__(self, classes=10, depth=3):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layers = nn.ModuleList(Block() for _ in range(depth))
        self.norm, self.bn = nn.LayerNorm(8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(self.bn(self.norm(x)))


NET = specs(Net())


def under(prefix, names):
    return {prefix + name: spec for name, spec in names.items()}


def renamed(names, *changes):
    found = {}
    for name, spec in names.items():
        for old, new in changes:
            name = name.replace(old, new)
        found[name] = spec
    return found


def without(names, *parts):
    return {n: spec for n, spec in names.items() if not any(part in n for part in parts)}


def rules(match):
    return [words(edit) for edit in match.rules]
