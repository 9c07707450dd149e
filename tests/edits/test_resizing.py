from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from tensorkeep.edits.resizing import InflateConv, Resize, ResizePositions, resampling
from tensorkeep.errors import BadArgument, Unwritable


def test_a_vocabulary_grows_and_shrinks(edited):
    state = {"wte.weight": torch.randn(50, 8), "h.weight": torch.randn(3, 3)}
    cut = edited(state, Resize("wte.weight", 30))
    assert torch.equal(cut["wte.weight"], state["wte.weight"][:30])
    assert torch.equal(cut["h.weight"], state["h.weight"])
    zeros = edited(state, Resize("wte.weight", 60))["wte.weight"]
    assert torch.equal(zeros[:50], state["wte.weight"]) and not zeros[50:].any()
    mean = edited(state, Resize("wte.weight", 60, fill="mean"))["wte.weight"]
    wanted = state["wte.weight"].double().mean(0).float().expand(10, 8)
    torch.testing.assert_close(mean[50:], wanted, rtol=0, atol=1e-7)
    again = edited(state, Resize("wte.weight", 120, fill="repeat"))["wte.weight"]
    assert torch.equal(again, state["wte.weight"].repeat(3, 1)[:120])


def test_along_another_dimension(edited):
    state = {"a": torch.randn(3, 4, 5)}
    mean = edited(state, Resize("a", 6, dim=1, fill="mean"))["a"]
    torch.testing.assert_close(mean[:, 4:], state["a"].mean(1, keepdim=True).expand(3, 2, 5))


@given(st.integers(1, 40), st.integers(1, 40))
def test_resampling_is_torch_s(before, after):
    # Four columns: of a single one torch 2.13 repeats the first row of the result.
    line = torch.randn(1, 1, before, 4, dtype=torch.float64)
    wanted = interpolate(line, (after, 4), mode="bicubic", antialias=True)
    got = torch.from_numpy(resampling(before, after)) @ line[0, 0]
    torch.testing.assert_close(got, wanted[0, 0])


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("new", [(7, 7), (20, 10)])
def test_positions_as_vision_models_resample_them(edited, prefix, new):
    old = torch.randn(1, prefix + 14 * 14, 6)
    got = edited({"pos_embed": old}, ResizePositions("pos_embed", new))["pos_embed"]
    grid = old[:, prefix:].reshape(1, 14, 14, 6).permute(0, 3, 1, 2)
    wanted = interpolate(grid, new, mode="bicubic", antialias=True)
    wanted = wanted.permute(0, 2, 3, 1).reshape(1, -1, 6)
    torch.testing.assert_close(got, torch.cat([old[:, :prefix], wanted], 1))


def test_positions_of_other_grids(edited):
    line = edited({"p": torch.randn(512, 8)}, ResizePositions("p", (1024,)))["p"]
    assert line.shape == (1024, 8)
    wide = edited({"p": torch.randn(1 + 6, 8)}, ResizePositions("p", (4, 6), old=(2, 3), prefix=1))
    assert wide["p"].shape == (25, 8)
    with pytest.raises(BadArgument, match="a square grid"):
        edited({"p": torch.randn(1, 14 * 13, 6)}, ResizePositions("p", (7, 7)))
    with pytest.raises(BadArgument, match="shape \\(positions, channels\\)"):
        edited({"p": torch.randn(2, 16, 6)}, ResizePositions("p", (7, 7)))


def test_a_first_convolution(edited):
    state = {"conv.weight": torch.randn(4, 3, 2, 2)}
    one = edited(state, InflateConv("conv.weight", 1))["conv.weight"]
    torch.testing.assert_close(one, state["conv.weight"].sum(1, keepdim=True))
    five = edited(state, InflateConv("conv.weight", 5))["conv.weight"]
    torch.testing.assert_close(five, state["conv.weight"].repeat(1, 2, 1, 1)[:, :5] * 3 / 5)


def test_what_cannot_be(edited):
    with pytest.raises(BadArgument, match="shape \\(out, in"):
        edited({"w": torch.ones(3, 3)}, InflateConv("w", 1))
    with pytest.raises(Unwritable, match="a mean"):
        edited({"w": torch.ones(3, 3, dtype=torch.int64)}, Resize("w", 5, fill="mean"))
    with pytest.raises(BadArgument, match="fill zeros"):
        Resize("w", 5, fill="random")
    for size in (0, -1, 1 << 63):
        with pytest.raises(BadArgument, match="a size from 1"):
            Resize("w", size)
