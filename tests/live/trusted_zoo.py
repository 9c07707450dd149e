"""Classes for the tests of trust, in a module of their own: importing it is an event."""

from __future__ import annotations

import collections
import enum
import os

import torch

if "ZOO_IMPORTED" in os.environ:
    raise ImportError("imported, though nobody trusts it")


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Registry(dict):
    pass


class Slotted:
    __slots__ = ("a", "b")


class Config:
    def __init__(self):
        self.width = 3
        self.mode = Mode.SLOW


class Block(torch.nn.Module):
    class Inner:
        depth = 1

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.inner = self.Inner()
        self.inner.depth = 2
        self.activation = torch.nn.functional.relu
        self.norm = torch.nn.LayerNorm

    def forward(self, x):
        return self.activation(self.linear(x)) * self.inner.depth


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config = Config()
        self.block = Block()
        self.rnn = torch.nn.LSTM(3, 4, bidirectional=True)
        self.head = torch.nn.Linear(8, 2)
        self.tied = self.head
        self.register_buffer("scale", torch.ones(2), persistent=False)
        self.registry = Registry(a=1)
        self.order = collections.OrderedDict(x=self.block)

    def __setstate__(self, state):
        # A class may look at its tensors when it gets its state.
        self.seen = float(state["_modules"]["head"].weight.detach().sum())
        super().__setstate__(state)

    def forward(self, x):
        return self.head(self.rnn(self.block(x))[0]) * self.scale


def rebuilt(number):
    model = torch.nn.Identity()
    model.seven = number
    return model


NAMES = [
    f"trusted_zoo.{name}" for name in ("Net", "Config", "Block", "Block.Inner", "Mode", "Registry")
]
