"""Edits and their inverses, from file to file: every tensor comes back, bit for bit."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.edits.applying import invert
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.names import AddPrefix, Rename, Strip, Swap
from tensorkeep.edits.recipe import parse, to_toml
from tensorkeep.errors import BadArgument, NameCollision

PARTS = st.sampled_from(["a", "b", "h", "0", "1", "10", "weight", "bias"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
EDITS = st.one_of(
    st.builds(AddPrefix, st.sampled_from(["model", "a"])),
    st.builds(Strip, st.sampled_from(["a", "model"])),
    st.builds(Rename, st.sampled_from(["a", "h.{n}", "weight$"]), st.sampled_from(["x", "b"])),
    st.just(Rename("h.{n}", "layers.{n+3}")),
    st.just(Rename("a.*", "q.*")),
    st.just(Swap("a", "b")),
)


@settings(max_examples=60, deadline=None)
@given(st.sets(NAMES, min_size=1, max_size=8), st.lists(EDITS, min_size=1, max_size=3))
def test_there_and_back(names, edits):
    state = {name: torch.full((2, 3), float(at)) for at, name in enumerate(sorted(names))}
    file = io.BytesIO()
    torch.save(state, file)
    with tk.open(file.getvalue()) as ckpt:
        try:
            back = invert(edits, Inventory.of("x", ckpt.select("")))
        except (BadArgument, NameCollision):
            assume(False)
    with tempfile.TemporaryDirectory() as folder:
        there, again = Path(folder) / "there.pth", Path(folder) / "again.pth"
        tk.convert(file.getvalue(), there, edits=parse(to_toml(edits)).edits)
        tk.convert(there, again, edits=back)
        found = torch.load(again)
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
