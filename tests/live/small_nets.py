"""A module with a bit of everything, for the tests that load into one."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """Embedding, layers in a list, batch norm, a recurrent layer, a head; a buffer in no file."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.bn = nn.BatchNorm1d(8)
        self.norm = nn.LayerNorm(8)
        self.rnn = nn.LSTM(8, 8)
        self.head = nn.Linear(8, classes)
        self.register_buffer("positions", torch.arange(10) * 2, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits for each of a row of tokens."""
        found = self.embed(tokens) + self.positions[: len(tokens), None]
        for layer in self.layers:
            found = layer(found)
        return self.head(self.rnn(self.norm(self.bn(found)))[0])


class Tied(nn.Module):
    """An embedding that is the head's weight too, unless `tie` is false."""

    def __init__(self, *, tie: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tie:
            self.head.weight = self.embed.weight


def net(classes: int = 10, seed: int = 0) -> Net:
    """One with values of its own everywhere."""
    torch.manual_seed(seed)
    made = Net(classes)
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
        made.bn.num_batches_tracked += 7
    return made


def equal(a: nn.Module, b: nn.Module) -> bool:
    """Whether all tensors of their state dicts are the same, bit for bit."""
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )
