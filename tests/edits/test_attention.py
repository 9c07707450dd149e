from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model, GPTNeoXConfig, GPTNeoXForCausalLM

from tensorkeep.edits.attention import Fuse, Split
from tensorkeep.errors import BadArgument, NameCollision, UnknownTensor

PARTS = ("q_proj", "k_proj", "v_proj")


@pytest.fixture
def apart():
    """Query, key and value of 6 heads of 4, weights and biases."""
    return {
        f"attn.{part}.{kind}": torch.randn(24, 10) if kind == "weight" else torch.randn(24)
        for part in PARTS
        for kind in ("weight", "bias")
    }


def test_multihead_attention_takes_what_was_fused(edited, apart):
    own = nn.MultiheadAttention(24, 6)
    state = {f"attn.{part}.weight": torch.randn(24, 24) for part in PARTS}
    fused = edited(state, Fuse(PARTS, "in_proj"))["attn.in_proj.weight"]
    assert fused.shape == own.in_proj_weight.shape
    assert torch.equal(fused, torch.cat(list(state.values())))


@pytest.mark.parametrize("layout", ["concat", "per-head", "grouped"])
def test_split_takes_fuse_back(edited, apart, layout):
    fuse = Fuse(PARTS, "qkv", layout, heads=6)
    assert list(edited(apart, fuse)) == ["attn.qkv.weight", "attn.qkv.bias"]
    back = edited(apart, fuse, fuse.inverse())
    assert back.keys() == apart.keys()
    assert all(torch.equal(back[name], value) for name, value in apart.items())
    assert fuse.inverse().inverse() == fuse


def test_grouped_heads(edited):
    heads, groups, size = 6, 2, 4
    q, k, v = torch.randn(heads * size, 5), torch.randn(8, 5), torch.randn(8, 5)
    state = dict(zip((f"{part}.weight" for part in PARTS), (q, k, v), strict=True))
    for layout in ("concat", "grouped"):
        fuse = Fuse(PARTS, "qkv", layout, heads, groups)
        fused = edited(state, fuse)["qkv.weight"]
        if layout == "grouped":
            blocks = fused.reshape(groups, heads // groups + 2, size, 5)
            assert torch.equal(blocks[:, :-2].reshape(-1, 5), q)
            assert torch.equal(blocks[:, -2].reshape(-1, 5), k)
            assert torch.equal(blocks[:, -1].reshape(-1, 5), v)
        else:
            assert torch.equal(fused, torch.cat([q, k, v]))
        back = edited({"qkv.weight": fused}, fuse.inverse())
        assert all(torch.equal(back[name], value) for name, value in state.items())


def test_neox_splits_by_heads(edited):
    config = GPTNeoXConfig(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=32,
        vocab_size=20,
    )  # fmt: skip
    state = GPTNeoXForCausalLM(config).state_dict()
    parts = edited(state, Split("query_key_value", PARTS, "per-head", heads=4))
    stem = "gpt_neox.layers.0.attention"
    x, hidden = torch.randn(3, 32), 32
    fused = nn.functional.linear(x, state[f"{stem}.query_key_value.weight"])
    wanted = fused.reshape(3, 4, 3, hidden // 4).permute(2, 0, 1, 3).reshape(3, 3, hidden)
    for at, part in enumerate(PARTS):
        got = nn.functional.linear(x, parts[f"{stem}.{part}.weight"])
        torch.testing.assert_close(got, wanted[at])


def test_gpt2_splits_along_columns(edited):
    config = GPT2Config(n_embd=12, n_head=2, n_layer=1, vocab_size=20, n_positions=8)
    state = GPT2Model(config).state_dict()
    parts = edited(state, Split("c_attn", PARTS, dim=1))
    whole = state["h.0.attn.c_attn.weight"]
    for at, part in enumerate(PARTS):
        assert torch.equal(parts[f"h.0.attn.{part}.weight"], whole[:, at * 12 : at * 12 + 12])
        assert parts[f"h.0.attn.{part}.bias"].shape == (12,)


def test_what_cannot_be(edited, apart, inventory):
    with pytest.raises(UnknownTensor, match="beside 'attn.q_proj.weight'"):
        edited({"attn.q_proj.weight": torch.ones(2, 2)}, Fuse(PARTS, "qkv"))
    with pytest.raises(BadArgument, match="that 5 divides"):
        edited(apart, Fuse(PARTS, "qkv", "per-head", heads=5))
    with pytest.raises(BadArgument, match="a size that 5 divides"):
        edited(apart, Split("q_proj", ("a", "b", "c", "d", "e")))
    with pytest.raises(BadArgument, match="names of their own"):
        edited(apart, Split("q_proj", ("a", "a")))
    with pytest.raises(NameCollision, match="another tensor has"):
        edited(apart, Split("q_proj", ("k_proj", "x")))
    for wrong in ({"layout": "per-head"}, {"heads": 6, "groups": 4}, {"layout": "other"}):
        with pytest.raises(BadArgument):
            Fuse(PARTS, "qkv", **wrong)
    found = inventory(apart)
    Split("nothing", ("a", "b")).apply(found)
    assert found.notes == ["no name matches 'nothing' to split"]
