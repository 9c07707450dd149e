from __future__ import annotations

import json
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from tensorkeep.edits.lora import MergeLora
from tensorkeep.errors import BadArgument, Damaged, StoreError, UnknownTensor, Unsupported


class Small(nn.Module):
    """A linear layer, a convolution, an embedding and one that stays as it is."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.deep = nn.Linear(6, 6)
        self.conv = nn.Conv2d(3, 4, 3)
        self.emb = nn.Embedding(10, 5)
        self.head = nn.Linear(6, 2)


def adapted(model, **options):
    """The model with an adapter whose matrices are all random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn_like(parameter))
    return wrapped


CONFIGS = [
    {"r": 3, "lora_alpha": 5, "target_modules": ["lin", "deep", "conv", "emb"]},
    {"r": 4, "lora_alpha": 2, "target_modules": ["lin"], "use_rslora": True},
    {"r": 2, "target_modules": ["lin"], "modules_to_save": ["head"]},
    {
        "r": 2, "target_modules": ["lin", "deep"], "rank_pattern": {"deep": 5},
        "alpha_pattern": {"deep": 32},
    },
    {"r": 2, "target_modules": ["lin"], "bias": "lora_only"},
]  # fmt: skip


@pytest.mark.parametrize("options", CONFIGS)
def test_an_adapter_folder_merges_as_peft_merges(edited, tmp_path, options):
    model = Small()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = adapted(model, **options)
    wrapped.save_pretrained(tmp_path)
    got = edited(state, MergeLora(str(tmp_path)))
    wanted = wrapped.merge_and_unload().state_dict()
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value)


def test_models_of_transformers(edited, tmp_path):
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=30,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = adapted(model, r=4, target_modules=["q_proj", "down_proj"])
    wrapped.save_pretrained(tmp_path)
    got = edited(state, MergeLora(str(tmp_path / "adapter_model.safetensors")))
    for name, value in wrapped.merge_and_unload().state_dict().items():
        torch.testing.assert_close(got[name], value)


def test_weights_stored_transposed(edited, tmp_path):
    model = GPT2LMHeadModel(
        GPT2Config(n_embd=12, n_head=2, n_layer=1, vocab_size=20, n_positions=8)
    )
    assert isinstance(model.transformer.h[0].attn.c_attn, Conv1D)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = adapted(model, r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    wrapped.save_pretrained(tmp_path)
    got = edited(state, MergeLora(str(tmp_path)))
    for name, value in wrapped.merge_and_unload().state_dict().items():
        torch.testing.assert_close(got[name], value)


def test_adapters_saved_in_place(edited):
    wrapped = adapted(Small(), r=3, lora_alpha=5, target_modules=["lin", "conv"])
    got = edited(wrapped.state_dict(), MergeLora(alpha=5))
    wanted = wrapped.merge_and_unload().state_dict()
    assert got.keys() == {f"base_model.model.{name}" for name in wanted}
    for name, value in wanted.items():
        torch.testing.assert_close(got[f"base_model.model.{name}"], value)


def test_transposed_weights_saved_in_place(edited, inventory):
    config = GPT2Config(n_embd=12, n_head=2, n_layer=1, vocab_size=20, n_positions=8)
    for target in ("c_attn", "attn.c_proj"):
        model = GPT2LMHeadModel(config)
        wrapped = adapted(model, r=4, lora_alpha=8, target_modules=[target], fan_in_fan_out=True)
        state = {name: value.clone() for name, value in wrapped.state_dict().items()}
        got = edited(state, MergeLora(alpha=8, fan_in_fan_out=True))
        for name, value in wrapped.merge_and_unload().state_dict().items():
            torch.testing.assert_close(got[f"base_model.model.{name}"], value)
        found = inventory(state)
        if target == "c_attn":
            with pytest.raises(BadArgument, match="need fan_in_fan_out"):
                MergeLora(alpha=8).apply(found)
        else:
            MergeLora(alpha=8).apply(found)
            assert "which way it is stored" in found.notes[0]


def test_of_several_adapters_one_is_merged_and_the_others_named(edited, inventory):
    wrapped = adapted(Small(), r=3, lora_alpha=6, target_modules=["lin"], modules_to_save=["head"])
    wrapped.add_adapter("other", LoraConfig(r=2, target_modules=["deep"]))
    state = {name: value.clone() for name, value in wrapped.state_dict().items()}
    got = edited(state, MergeLora(alpha=6))
    wanted = wrapped.merge_and_unload().state_dict()
    assert got.keys() == {f"base_model.model.{name}" for name in wanted}
    for name, value in wanted.items():
        torch.testing.assert_close(got[f"base_model.model.{name}"], value)
    found = inventory(state)
    MergeLora(alpha=6).apply(found)
    assert found.notes == ["adapter 'other' dropped: only 'default' was merged"]


def test_a_prefix(edited, tmp_path):
    model = Small()
    state = {f"net.{name}": value.clone() for name, value in model.state_dict().items()}
    wrapped = adapted(model, r=3, target_modules=["lin"])
    wrapped.save_pretrained(tmp_path)
    got = edited(state, MergeLora(str(tmp_path), prefix="net"))
    wanted = wrapped.merge_and_unload().state_dict()["lin.weight"]
    torch.testing.assert_close(got["net.lin.weight"], wanted)


def test_what_cannot_be(edited, tmp_path, inventory):
    model = Small()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = adapted(model, r=3, target_modules=["lin"])
    with pytest.raises(BadArgument, match="expected alpha"):
        edited(wrapped.state_dict(), MergeLora())
    wrapped.save_pretrained(tmp_path)
    with pytest.raises(UnknownTensor, match=r"'lin\.weight'"):
        edited({"x": torch.ones(1)}, MergeLora(str(tmp_path)))
    config = tmp_path / "adapter_config.json"
    table = json.loads(config.read_text())
    for change, error in (
        ({"use_dora": True}, Unsupported), ({"rank_pattern": {"(a+)+": 3}}, Unsupported),
        ({"r": 7}, Damaged), ({"peft_type": "IA3"}, Damaged), ({"lora_alpha": []}, Damaged),
    ):  # fmt: skip
        config.write_text(json.dumps(table | change))
        with pytest.raises(error):
            edited(state, MergeLora(str(tmp_path)))
    config.write_text("[" * 100_000)
    with pytest.raises(Damaged):
        edited(state, MergeLora(str(tmp_path)))
    config.unlink()
    with pytest.raises(StoreError):
        edited(state, MergeLora(str(tmp_path)))
    found = inventory(state)
    MergeLora(alpha=1).apply(found)
    assert found.notes == ["no LoRA adapter 'default' to merge"]


def test_dora_is_refused(edited, tmp_path):
    model = Small()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    adapted(model, r=3, target_modules=["lin"], use_dora=True).save_pretrained(tmp_path)
    with pytest.raises(Unsupported, match="DoRA"):
        edited(state, MergeLora(str(tmp_path)))
