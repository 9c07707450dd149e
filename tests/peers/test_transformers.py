"""transformers: tiny random models of its architectures, saved by it, read and converted by us."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

import tensorkeep as tk
from tensorkeep.edits.names import Rename

pytestmark = [
    # torch.jit and the frameworks' own deprecations, said at import or while a model is built.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"),
]

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SEQ2SEQ = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    **TOKENS,
    "decoder_start_token_id": 2,
}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}

MODELS = {
    "bert": ("BertForMaskedLM", SMALL),
    "roberta": ("RobertaForMaskedLM", {**SMALL, **TOKENS}),
    "distilbert": (
        "DistilBertForMaskedLM",
        {"vocab_size": 64, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    ),
    "albert": ("AlbertForMaskedLM", {**SMALL, "embedding_size": 8, **TOKENS}),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, **TOKENS},
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", {**SMALL, **TOKENS}),
    "opt": (
        "OPTForCausalLM",
        {**SMALL, "ffn_dim": 24, "word_embed_proj_dim": 16, **TOKENS},
    ),
    "llama": ("LlamaForCausalLM", {**SMALL, "num_key_value_heads": 1, **TOKENS}),
    "mistral": ("MistralForCausalLM", {**SMALL, "num_key_value_heads": 1, **TOKENS}),
    "qwen2": (
        "Qwen2ForCausalLM",
        {**SMALL, "num_key_value_heads": 1, "tie_word_embeddings": True, **TOKENS},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": 64,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 24,
            "num_layers": 2,
            "num_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        },
    ),
    "bart": ("BartForConditionalGeneration", SEQ2SEQ),
    "whisper": (
        "WhisperForConditionalGeneration",
        {
            **SEQ2SEQ,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
        },
    ),
    "vit": ("ViTForImageClassification", VISION),
    "clip": (
        "CLIPModel",
        {
            "text_config": {**SMALL, **TOKENS},
            "vision_config": VISION,
            "projection_dim": 8,
        },
    ),
    "mamba": (
        "MambaForCausalLM",
        {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, **TOKENS},
    ),
}
TIED = {"bert", "gpt2", "opt", "qwen2", "t5", "bart", "whisper", "roberta", "distilbert"}
ALL = pytest.mark.parametrize("name", MODELS)


class Case:
    """A model with random weights, and what transformers makes of a folder."""

    def __init__(self, name, room):
        self.name = name
        self.room = room / name
        self.room.mkdir()
        architecture, options = MODELS[name]
        self.type = getattr(transformers, architecture)
        torch.manual_seed(len(name))
        self.model = self.type(AutoConfig.for_model(name, **options))
        self.state = self.model.state_dict()

    def path(self, name):
        return self.room / name

    def loads(self, folder, **options):
        """The folder with our weights beside the configuration of theirs."""
        self.model.config.save_pretrained(folder)
        model, said = self.type.from_pretrained(folder, output_loading_info=True, **options)
        assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        return model


@pytest.fixture(scope="session")
def case(room):
    made = {}

    def get(name):
        if name not in made:
            made[name] = Case(name, room)
        return made[name]

    return get


def equal(model, state, bits):
    loaded = model.state_dict()
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert bits(loaded[name]) == bits(tensor), name


def groups(state):
    """Names that share their bytes."""
    by_place = {}
    for name, tensor in state.items():
        by_place.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(names) for names in by_place.values() if len(names) > 1}


@ALL
def test_save_pretrained(case, name, agree):
    it = case(name)
    folder = it.path("saved")
    it.model.save_pretrained(folder)
    expected = load_file(folder / "model.safetensors")
    agree(folder, expected)
    agree(folder / "model.safetensors", expected)
    # Some architectures are saved under the names of an earlier version.
    if set(expected) <= set(it.state):
        agree(folder, {name: it.state[name] for name in expected})
        # The further names of a tied tensor are left out, and nothing else.
        shared = set().union(*groups(it.state))
        assert set(it.state) - set(expected) <= shared
    report = tk.inspect(folder)
    assert report.kind == "state_dict"
    assert "format" in report.metadata


@ALL
def test_the_state_dict_by_torch(case, name, agree, bits, flat):
    it = case(name)
    path = it.path("state.pth")
    torch.save(it.state, path)
    agree(path, it.state)
    with tk.open(path) as ckpt:
        tied = {frozenset((alias, ckpt[alias].tied_to)) for alias in ckpt if ckpt[alias].tied_to}
        assert {name for pair in tied for name in pair} == set().union(*groups(it.state))
    target = it.path("converted.safetensors")
    report = tk.convert(path, target, verify=True)
    assert report.left_out == [] and report.cast == []
    agree(target, it.state)
    back = it.path("back.pth")
    tk.convert(target, back)
    loaded = torch.load(back, weights_only=True)
    assert {k: bits(v) for k, v in loaded.items()} == {k: bits(v) for k, v in it.state.items()}
    assert groups(loaded) == groups(it.state)


@ALL
def test_from_pretrained_opens_what_we_write(case, name, bits, tmp_path):
    it = case(name)
    path = tmp_path / "state.pth"
    torch.save(it.state, path)
    folder = tmp_path / "single"
    folder.mkdir()
    tk.convert(path, folder / "model.safetensors")
    model = it.loads(folder)
    equal(model, it.state, bits)
    assert groups(model.state_dict()) == groups(it.state)


@ALL
@pytest.mark.parametrize("to", ["safetensors", "torch"])
def test_from_pretrained_opens_our_parts(case, name, to, bits, tmp_path):
    it = case(name)
    torch.save(it.state, tmp_path / "state.pth")
    folder = tmp_path / "parts"
    report = tk.convert(tmp_path / "state.pth", f"{folder}/", to=to, shard_size="10KB")
    assert len(report.files) > 2
    model = it.loads(folder, use_safetensors=to == "safetensors")
    equal(model, it.state, bits)
    assert groups(model.state_dict()) == groups(it.state)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "clip", "whisper"])
def test_parts_by_save_pretrained(case, name, agree, bits, tmp_path):
    it = case(name)
    folder = tmp_path / "sharded"
    it.model.save_pretrained(folder, max_shard_size="10KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    expected = {key: it.state[key] for key in index["weight_map"]}
    agree(folder, expected)
    agree(folder / "model.safetensors.index.json", expected)
    with tk.open(folder) as ckpt:
        assert len(ckpt.contents.parts) == len(set(index["weight_map"].values())) > 1
    tk.convert(folder, tmp_path / "one.pth")
    loaded = torch.load(tmp_path / "one.pth")
    assert {k: bits(v) for k, v in loaded.items()} == {k: bits(v) for k, v in expected.items()}
    (tmp_path / "again").mkdir()
    tk.convert(folder, tmp_path / "again" / "model.safetensors")
    equal(it.loads(tmp_path / "again"), it.state, bits)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "vit"])
def test_a_cast_is_the_one_that_torch_makes(case, name, dtype, bits, tmp_path):
    it = case(name)
    torch.save(it.state, tmp_path / "state.pth")
    folder = tmp_path / "cast"
    folder.mkdir()
    report = tk.convert(tmp_path / "state.pth", folder / "model.safetensors", dtype=dtype)
    assert set(report.cast) | set(report.tied) == set(it.state)
    wanted = getattr(torch, dtype)
    model = it.loads(folder, dtype=wanted)
    equal(model, {name: tensor.to(wanted) for name, tensor in it.state.items()}, bits)


def test_half_precision_models(case, agree, tmp_path):
    it = case("mistral")
    model = it.type(it.model.config).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    agree(tmp_path, model.state_dict())


def test_a_base_model_of_a_task_model(case, tmp_path, bits):
    """`--only` picks the encoder; its names keep their prefix, which transformers strips."""
    it = case("bert")
    torch.save(it.state, tmp_path / "state.pth")
    (tmp_path / "base").mkdir()
    tk.convert(tmp_path / "state.pth", tmp_path / "base" / "model.safetensors", only=["bert.*"])
    it.model.config.save_pretrained(tmp_path / "base")
    model = AutoModel.from_pretrained(tmp_path / "base", add_pooling_layer=False)
    for key, tensor in model.state_dict().items():
        assert bits(tensor) == bits(it.state[f"bert.{key}"])


@pytest.mark.parametrize("name", sorted(TIED))
def test_that_ties_are_tried_at_all(case, name):
    assert groups(case(name).state)


# Where transformers saves under names of before that only shapes would tell, they are said.
OLD_NAMES = {
    "gpt_neox": [Rename("embed_out", "lm_head")],
    "vit": [
        Rename("attention.attention.query", "attention.q_proj"),
        Rename("attention.attention.key", "attention.k_proj"),
        Rename("attention.attention.value", "attention.v_proj"),
        Rename("attention.output.dense", "attention.o_proj"),
        Rename("intermediate.dense", "mlp.fc1"),
        Rename("output.dense", "mlp.fc2"),
    ],
}


def fresh(it, way):
    """The same architecture without the values: real, without weights, or wholly on meta."""
    architecture, options = MODELS[it.name]
    config = AutoConfig.for_model(it.name, **options)
    torch.manual_seed(99)
    if way == "real":
        return it.type(config)
    with tk.empty_weights() if way == "empty" else torch.device("meta"):
        return it.type(config)


def persistent_and_not(model):
    return {**model.state_dict(), **dict(model.named_buffers())}


@ALL
@pytest.mark.parametrize("way", ["real", "empty", "meta"])
def test_load_into(case, name, way, bits, tmp_path):
    it = case(name)
    it.model.save_pretrained(tmp_path / "saved")
    model = fresh(it, way)
    edits = OLD_NAMES.get(name, ())
    report = tk.load_into(model, tmp_path / "saved", mmap=way == "empty", edits=edits)
    assert report.coverage["bytes"] == 1
    equal(model, it.state, bits)
    assert groups(model.state_dict()) == groups(it.state)
    ours, theirs = persistent_and_not(model), persistent_and_not(it.model)
    assert {k: bits(v) for k, v in ours.items()} == {k: bits(v) for k, v in theirs.items()}
    model.save_pretrained(tmp_path / "again")
    one = (tmp_path / "saved" / "model.safetensors").read_bytes()
    assert one == (tmp_path / "again" / "model.safetensors").read_bytes()
