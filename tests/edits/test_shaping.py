from __future__ import annotations

import pytest
import torch

from tensorkeep.edits.applying import apply
from tensorkeep.edits.shaping import CastTo, Pad, Reshape, Scale, Slice, Tie, Transpose, Untie
from tensorkeep.errors import BadArgument, UnknownTensor


@pytest.fixture
def state():
    return {"a.weight": torch.randn(6, 4), "b.weight": torch.randn(6, 4).bfloat16()}


def test_each(edited, state):
    a, b = state["a.weight"], state["b.weight"]
    got = edited(state, Slice("weight", 0, 1, -1))
    assert torch.equal(got["a.weight"], a[1:-1]) and torch.equal(got["b.weight"], b[1:-1])
    got = edited(state, Pad("a.weight", 1, 2, 1, 0.5))["a.weight"]
    assert torch.equal(got, torch.nn.functional.pad(a, (2, 1), value=0.5))
    got = edited(state, Transpose("weight"))
    assert torch.equal(got["a.weight"], a.T) and torch.equal(got["b.weight"], b.T)
    assert edited(state, Reshape("weight", (2, -1)))["b.weight"].shape == (2, 12)
    got = edited(state, CastTo("b.weight", "float32"))
    assert torch.equal(got["b.weight"], b.float()) and torch.equal(got["a.weight"], a)
    got = edited(state, Scale("weight", 3.0))
    torch.testing.assert_close(got["a.weight"], a * 3)
    assert torch.equal(got["b.weight"], (b.float() * 3).bfloat16())


@pytest.mark.parametrize(
    "edit", [Pad("weight", 1, 2, 1, 0.5), Pad("weight", 0, 0, 3), Transpose("weight", (1, 0))]
)
def test_and_back(edited, state, edit):
    back = edited(state, edit, edit.inverse())
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_ties(inventory):
    shared = torch.randn(3)
    found = inventory({"a": shared, "b": shared, "c": torch.randn(3), "d": torch.randn(4)})
    assert found["a"] == found["b"] and found["a"] != found["c"]
    Untie("b").apply(found)
    assert found["a"] != found["b"]
    Tie("c", "a").apply(found)
    assert found["a"] == found["c"]
    with pytest.raises(BadArgument, match="tie of 'd' to 'a'"):
        Tie("d", "a").apply(found)
    with pytest.raises(UnknownTensor):
        Tie("d", "e").apply(found)


def test_what_cannot_be(edited, state):
    for edit in (
        Slice("weight", 2), Slice("weight", 0, 4, 2), Slice("weight", 0, -9),
        Slice("weight", 0, 0, 9),
        Reshape("weight", (5, -1)), Reshape("weight", (0, -1)), Transpose("weight", (0, 0)),
        Transpose("weight", (0,)),
    ):  # fmt: skip
        with pytest.raises(BadArgument):
            edited(state, edit)
    for make in (
        lambda: Reshape("w", (-1, -1)), lambda: Pad("w", 0, -1), lambda: CastTo("w", "float3"),
        lambda: Pad("w", 0, 1 << 62, 1 << 62),
    ):  # fmt: skip
        with pytest.raises(BadArgument):
            make()


def test_the_tensor_that_an_edit_cannot_change_is_named(inventory, state):
    for edit in (Slice("weight", 3), Reshape("weight", (5,)), Transpose("weight", (0, 0))):
        with pytest.raises(BadArgument, match=rf"\(at edit 1, {edit.op}, a\.weight\)"):
            apply(inventory(state), [edit])
    with pytest.raises(BadArgument, match="finite factor"):
        Scale("weight", float("nan"))
