"""Edits applied to state dicts of torch: what the tests of this room share."""

from __future__ import annotations

import io

import pytest
import torch

import tensorkeep as tk
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.others import Others


@pytest.fixture
def inventory():
    """The tensors of a state dict, saved by torch and opened here; other files may be opened."""

    def made(state):
        file = io.BytesIO()
        torch.save(state, file)
        found = Inventory.of("a.pth", tk.open(file.getvalue()).select("all"))
        found.opens = others.open
        return found

    with Others() as others:
        yield made


def tensor(array):
    """All of an array, as torch has it."""
    data = bytearray(b"".join(bytes(piece) for piece in array.blocks()))
    dtype = getattr(torch, array.dtype.name)
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(array.shape)


@pytest.fixture
def edited(inventory):
    """A state dict after edits, as torch has it, and the notes under the key None."""

    def made(state, *edits):
        found = inventory(state)
        for edit in edits:
            edit.apply(found)
        return {name: tensor(array) for name, array in found.tensors.items()}

    return made
