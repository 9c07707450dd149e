"""Names as real wrappers and layers make them, against the module that they wrap."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

import tensorkeep as tk
from tensorkeep.matching.finding import find

sys.path.insert(0, str(Path(__file__).resolve().parent))

from match_nets import Net, rules, specs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def gloo():
    """A process group of one."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def ddp(module):
    return nn.parallel.DistributedDataParallel(module)


def sharded(module):
    from torch.distributed.fsdp import fully_shard

    for layer in module.layers:
        fully_shard(layer)
    return fully_shard(module)


def layers_compiled(module):
    module.layers = nn.ModuleList(torch.compile(layer) for layer in module.layers)
    return module


def layers_parallel(module):
    module.layers = nn.ModuleList(nn.DataParallel(layer) for layer in module.layers)
    return module


class Trainer(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model


class Teacher(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.backbone = model


WRAPPERS = {
    "compiled": [torch.compile],
    "ddp": [ddp],
    "data parallel": [nn.DataParallel],
    "sharded": [sharded],
    "averaged": [AveragedModel],
    "layers compiled": [layers_compiled],
    "layers in parallel": [layers_parallel],
    "compiled ddp": [ddp, torch.compile],
    "ddp of compiled": [torch.compile, ddp],
    "compiled sharded": [sharded, torch.compile],
    "trainer of compiled": [torch.compile, Trainer],
    "averaged ddp": [ddp, AveragedModel],
    "trainer of ddp of layers compiled": [layers_compiled, ddp, Trainer],
    "compiled ddp of layers compiled": [layers_compiled, ddp, torch.compile],
    "teacher of data parallel": [nn.DataParallel, Teacher],
}


@pytest.mark.parametrize("wrappers", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_wrapped_and_bare(wrappers, gloo):
    bare, module = specs(Net()), Net()
    for wrap in wrappers:
        module = wrap(module)
    wrapped = specs(module)
    match, lost = find(wrapped, bare), {"n_averaged"} & set(wrapped)
    assert match.fits and len(match.rules) <= len(wrappers) + len(lost), rules(match)
    back = find(bare, wrapped)
    assert set(back.missing) == lost and not back.unexpected and not back.mismatched
    assert len(back.rules) <= len(wrappers)


def test_activation_checkpointing_by_the_names_of_parameters():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    module = Net()
    module.layers = nn.ModuleList(checkpoint_wrapper(layer) for layer in module.layers)
    wrapped = raw(torch.compile(nn.DataParallel(module)))
    assert any("_checkpoint_wrapped_module" in name for name in wrapped)
    match = find(specs(wrapped), specs(Net()))
    assert match.fits and len(match.rules) == 2


def raw(module):
    """Tensors under the names of the modules as they stand, no hook having tidied them."""
    return {
        f"{prefix}.{name}" if prefix else name: tensor
        for prefix, one in module.named_modules(remove_duplicate=False)
        for name, tensor in (*one._parameters.items(), *one._buffers.items())
    }


@pytest.mark.parametrize("outer", [[], [torch.compile], [Trainer, torch.compile]])
def test_sharded_by_the_names_of_parameters(outer, gloo):
    from torch.distributed.fsdp import FullyShardedDataParallel

    module = Net()
    for at, layer in enumerate(module.layers):
        module.layers[at] = FullyShardedDataParallel(
            layer, use_orig_params=True, device_id=torch.device("cpu")
        )
    for wrap in outer:
        module = wrap(module)
    shapes = specs(Net())
    wrapped = {n: None for n in raw(module) if "_flat_param" not in n}
    assert any("_fsdp_wrapped_module" in name for name in wrapped)
    # A shard is flat; the names are what this is about.
    bare = {n.replace("_fsdp_wrapped_module.", ""): n for n in wrapped}
    file = {n: spec for b, n in bare.items() for m, spec in shapes.items() if b.endswith(m)
            and b.removesuffix(m) in ("", "_orig_mod.", "_orig_mod.model.")}  # fmt: skip
    match = find(file, shapes)
    assert match.fits and len(match.rules) == 1 + bool(outer), rules(match)


def convs(how):
    return nn.Sequential(*(how(nn.Conv1d(4, 4, 3)) for _ in range(3)))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.model."])
@pytest.mark.parametrize(
    ("old", "new"), [(weight_norm, parametrizations.weight_norm),
                     (spectral_norm, parametrizations.spectral_norm)],
)  # fmt: skip
def test_norms_before_and_after_they_were_parametrizations(prefix, old, new):
    one, two = specs(convs(old)), specs(convs(new))
    for a, b in ((one, two), (two, one)):
        match = find({prefix + name: spec for name, spec in a.items()}, b)
        assert match.fits and len(match.rules) <= 3 + bool(prefix), rules(match)


def test_weight_norm_of_a_recurrent_layer():
    old, new = nn.LSTM(3, 4, 2), nn.LSTM(3, 4, 2)
    for name in ("weight_hh_l0", "weight_ih_l1"):
        weight_norm(old, name)
        parametrizations.weight_norm(new, name)
    match = find(specs(old), specs(new))
    assert match.fits and len(match.rules) == 4


def test_a_pruned_model_is_no_bare_one():
    pruned = Net()
    prune.l1_unstructured(pruned.layers[0].fc1, "weight", 0.5)
    match = find(specs(pruned), specs(Net()))
    assert not match.fits and match.unexpected == ["layers.0.fc1.weight_mask"]
    assert any("prune.remove" in note for note in match.notes)
    # The other way the mask stays what it was, and says so.
    match = find(specs(Net()), specs(pruned))
    assert match.missing == ["layers.0.fc1.weight_mask"]


def test_counts_of_averaging(gloo):
    match = find(specs(AveragedModel(ddp(Net()))), specs(Net()))
    assert match.fits and len(match.rules) == 2


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.compile(Net())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.strategy.connect(Lit())
    trainer.save_checkpoint(tmp_path / "lit.ckpt")
    report = tk.match(tmp_path / "lit.ckpt", Net())
    assert report.fits and report.section == "state_dict"
    assert rules(report.match) == ["strip `net._orig_mod.`"]
    head = tk.match(tmp_path / "lit.ckpt", Net(classes=3))
    assert "(10 classes in the file, 3 in the model)" in str(head)


TINY = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 20}
MORE = {"intermediate_size": 16, "max_position_embeddings": 16}
ARCHITECTURES = {
    "Bert": ({**TINY, **MORE}, "ForSequenceClassification"),
    "Roberta": ({**TINY, **MORE}, "ForSequenceClassification"),
    "Electra": ({**TINY, **MORE, "embedding_size": 8}, "ForSequenceClassification"),
    "GPT2": ({"n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 20}, "LMHeadModel"),
    "Llama": ({**TINY, **MORE, "num_key_value_heads": 1}, "ForCausalLM"),
    "Qwen2": ({**TINY, **MORE, "num_key_value_heads": 1}, "ForCausalLM"),
    "OPT": ({**TINY, "ffn_dim": 16, "word_embed_proj_dim": 8}, "ForCausalLM"),
    "ViT": ({**TINY, "intermediate_size": 16, "image_size": 8, "patch_size": 4},
            "ForImageClassification"),
    "T5": ({"d_model": 8, "num_layers": 2, "num_heads": 2, "d_kv": 4, "d_ff": 16,
            "vocab_size": 20}, "ForConditionalGeneration"),
    "GPTNeoX": ({**TINY, **MORE}, "ForCausalLM"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_base_model_and_one_with_a_head(name):
    transformers = pytest.importorskip("transformers")
    settings, kind = ARCHITECTURES[name]
    config = getattr(transformers, f"{name}Config")(**settings)
    with torch.device("meta"):
        base = getattr(transformers, f"{name}Model")(config)
        whole = getattr(transformers, f"{name}{kind}")(config)
    prefix = f"{whole.base_model_prefix}." if name != "T5" else ""
    names, headed = specs(base), specs(whole)
    shared = {n for n in names if f"{prefix}{n}" in headed}
    match = find(names, headed)
    assert {match.names[f"{prefix}{n}"] for n in shared} == shared
    assert rules(match) == ([f"add `{prefix}`"] if prefix else [])
    wrapped = {f"_orig_mod.module.{n}": spec for n, spec in headed.items()}
    match = find(wrapped, names)
    assert {match.names[n] for n in shared} == {f"_orig_mod.module.{prefix}{n}" for n in shared}
    assert rules(match) == [f"strip `_orig_mod.module.{prefix}`"]


def sequential():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("wrappers", [[], [nn.DataParallel], [nn.DataParallel, torch.compile]])
@pytest.mark.parametrize("targets", [["0", "2"], ["0"], ["0", "2", "4"]])
def test_adapters_over_a_bare_sequence(targets, wrappers):
    peft = pytest.importorskip("peft")
    module = peft.get_peft_model(sequential(), peft.LoraConfig(target_modules=targets, r=2))
    adapter = specs(peft.get_peft_model_state_dict(module))
    bare, inner = specs(sequential()), specs(module)
    for wrap in wrappers:
        module = wrap(module)
    whole = specs(module)
    match = find(whole, bare)
    assert match.filled == len(bare) and all("lora_" in name for name in match.unexpected)
    match = find(bare, whole)
    assert match.filled == len(bare) and match.unexpected == []
    assert all("lora_" in name for name in match.missing)
    match = find(adapter, inner)
    assert match.filled == len(adapter) and match.unexpected == []
    assert find(inner, adapter).filled == len(adapter)
