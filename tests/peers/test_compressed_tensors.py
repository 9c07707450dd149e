"""compressed-tensors: what `quantize` writes, loaded by transformers with the real library.

compressed-tensors 0.20 with transformers 5.23. Where it is not installed there is nobody to ask.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import tensorkeep as tk
from tensorkeep.edits.dequantized import Dequantize

pytest.importorskip("compressed_tensors")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
IDS = torch.arange(12)[None]


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def same(cls, config, folder, options, dtype=torch.float32):
    """transformers' model of what we write gives the logits of what we dequantise."""
    torch.manual_seed(0)
    model = cls(config).to(dtype)
    model.save_pretrained(folder / "source")
    report = tk.quantize(folder / "source", f"{folder}/int8/", min_size=512, **options)
    tk.convert(folder / "int8", folder / "back.safetensors", edits=[Dequantize()])
    model = cls(config)
    model.load_state_dict(load_file(folder / "back.safetensors"), strict=False)
    model.tie_weights()
    loaded, info = cls.from_pretrained(
        folder / "int8", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()), info
    assert torch.equal(logits(loaded), logits(model))
    return report


@pytest.mark.parametrize(
    ("options", "quantized"),
    [
        ({}, 14),
        ({"lm_head": True}, 15),
        ({"embeddings": True, "lm_head": True}, 16),
        ({"skip": ["*.down_proj.weight"]}, 12),
        ({"shard_size": 20_000}, 14),
    ],
)
def test_llama(tmp_path, options, quantized):
    report = same(LlamaForCausalLM, LlamaConfig(**SMALL), tmp_path, options)
    assert len(report.quantized) == quantized


def test_a_model_of_bfloat16(tmp_path):
    same(LlamaForCausalLM, LlamaConfig(**SMALL), tmp_path, {}, torch.bfloat16)


def test_a_head_tied_to_the_embedding(tmp_path):
    config = Qwen2Config(**SMALL, tie_word_embeddings=True)
    report = same(Qwen2ForCausalLM, config, tmp_path, {})
    assert "lm_head.weight" not in {kept.name for kept in report.kept}
