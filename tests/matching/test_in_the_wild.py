"""Layouts as training code of several kinds saves them: what fits, after what, and what is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep.matching.against import find_in
from tensorkeep.matching.hints import hints
from tensorkeep.matching.specs import Spec, Wanted

sys.path.insert(0, str(Path(__file__).resolve().parent))

from match_nets import Net, renamed, rules, specs, under, without  # noqa: E402


def s(*shape):
    return Spec("float32", shape)


def layer(name, *shape):
    return {f"{name}.weight": s(*shape), f"{name}.bias": s(shape[0])}


def batch_norm(name, wide):
    made = {f"{name}.{leaf}": s(wide) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return made | {f"{name}.num_batches_tracked": Spec("int64", ())}


def resnet(classes=10, channels=3):
    """The names of torchvision's residual networks."""
    made = {"conv1.weight": s(8, channels, 7, 7)} | batch_norm("bn1", 8)
    before = 8
    for number, wide in enumerate((8, 16, 32), 1):
        for block in range(2):
            front = f"layer{number}.{block}"
            made[f"{front}.conv1.weight"] = s(wide, before, 3, 3)
            made[f"{front}.conv2.weight"] = s(wide, wide, 3, 3)
            made |= batch_norm(f"{front}.bn1", wide) | batch_norm(f"{front}.bn2", wide)
            if before != wide:
                made[f"{front}.downsample.0.weight"] = s(wide, before, 1, 1)
                made |= batch_norm(f"{front}.downsample.1", wide)
            before = wide
    return made | layer("fc", classes, 32)


def vit(positions=17):
    """The names of timm's vision transformers."""
    made = {"cls_token": s(1, 1, 8), "pos_embed": s(1, positions, 8)}
    made |= layer("patch_embed.proj", 8, 3, 4, 4) | layer("norm", 8) | layer("head", 10, 8)
    for at in range(3):
        for name, shape in (("attn.qkv", (24, 8)), ("attn.proj", (8, 8)), ("mlp.fc1", (16, 8)),
                            ("mlp.fc2", (8, 16)), ("norm1", (8,)), ("norm2", (8,))):  # fmt: skip
            made |= layer(f"blocks.{at}.{name}", *shape)
    return made


RESNET, VIT = resnet(), vit()
FSDP = "_fsdp_wrapped_module."
CHILDREN = (("layer1.", "4."), ("layer2.", "5."), ("layer3.", "6."), ("fc.", "9."))

# file, model, rules, how many of the model's tensors are filled (None: it fits).
CASES = {
    "DDP of compile of FSDP": (
        under(f"module._orig_mod.{FSDP}", renamed(RESNET, ("layer1.", f"layer1.{FSDP}"))),
        RESNET, 2, None,
    ),
    "compile of DDP of FSDP": (
        under(f"_orig_mod.module.{FSDP}", renamed(VIT, ("blocks.1.", f"blocks.1.{FSDP}"))),
        VIT, 2, None,
    ),
    "one stage compiled": (renamed(RESNET, ("layer2.", "layer2._orig_mod.")), RESNET, 1, None),
    "activation checkpointing of blocks": (
        renamed(VIT, *((f"blocks.{at}.", f"blocks.{at}._checkpoint_wrapped_module.")
                       for at in range(3))), VIT, 1, None),
    "Lightning with a loss": (under("model.net.", RESNET) | {"criterion.weight": s(10)},
                              RESNET, 1, len(RESNET)),
    "a tower of two": (under("visual.trunk.", VIT) | {"logit_scale": s()}, VIT, 1, len(VIT)),
    "DINO": (under("module.backbone.", VIT) | {"module.head.last.weight_g": s(4, 1)},
             VIT, 1, len(VIT)),
    "detector": (under("backbone.body.", without(RESNET, "fc.")) | layer("rpn.conv", 4, 4),
                 without(RESNET, "fc."), 1, len(RESNET) - 2),
    "another head": (under("module.", RESNET), resnet(3), 1, len(RESNET) - 2),
    "grey": (RESNET, resnet(10, 1), 0, len(RESNET) - 1),
    "another image size": (under("model.", VIT), vit(37), 1, len(VIT) - 1),
    "momentum encoder": (
        under("module.base_encoder.", VIT) | under("module.momentum_encoder.", VIT),
        VIT, 1, len(VIT),
    ),
    "average beside": (under("model.model.", RESNET) | under("ema.model.", RESNET),
                       RESNET, 1, len(RESNET)),
    "average of a generator": (under("netG.", RESNET) | under("netG_ema.", RESNET),
                               RESNET, 1, len(RESNET)),
    "another discriminator": (under("generator.", RESNET) | under("discriminator.", VIT),
                              RESNET, 1, len(RESNET)),
    "student and teacher": (under("student.module.", VIT) | under("teacher.module.", VIT),
                            VIT, 0, 0),
    "children of a sequence": (renamed(without(RESNET, "bn1.weight"), *CHILDREN),
                               without(RESNET, "bn1.weight"), 3, None),
    "one more layer in the model": (VIT, VIT | renamed({n: v for n, v in VIT.items()
                                    if "blocks.2" in n}, ("blocks.2", "blocks.3")), 0, len(VIT)),
    "a bare scalar": ({"x.scale": s()}, {"scale": s()}, 1, None),
    "a scalar of another name": ({"x.scale": s()}, {"y.gain": s()}, 0, 0),
    "shape alone": ({"foo": s(7, 5)}, {"bar": s(7, 5)}, 0, 0),
    "no elements": ({"module.w": s(0, 3)}, {"w": s(0, 3)}, 1, None),
    "two for one": ({"module.w": s(2), "w": s(2)}, {"w": s(2)}, 0, 1),
    "another kind of model": (VIT, RESNET, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_fits_and_after_what(name):
    file, model, most, filled = CASES[name]
    match = find_in(file, Wanted("the model", model))
    assert len(match.rules) <= most, rules(match)
    if name == "children of a sequence":  # numbers for names: what they say is taken, no more
        assert match.filled > len(model) * 0.8 and match.by_shape_only
        return
    assert match.fits == (filled is None) and match.filled == (len(model) if match.fits else filled)
    # Whatever is taken is taken from where it belongs.
    for target, source in match.names.items():
        assert target.endswith(source.split(".")[-1]) and model[target].shape == file[source].shape
        assert "ema" not in source and "momentum_encoder" not in source


def test_sections_of_a_training_checkpoint(tmp_path):
    net, path = Net(), tmp_path / "run.pth"
    optimizer = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    ema = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"model": net.state_dict(), "model_ema": ema, "optimizer": optimizer.state_dict(),
                "epoch": 3}, path)  # fmt: skip
    assert tk.match(path, net).section == "model" and tk.match(path, net).fits
    report = tk.match(path, net, section="model_ema")
    assert report.fits and rules(report.match) == ["strip `module.`"]
    report = tk.match(path, net, section="optimizer")
    assert not report.fits and report.match.filled == 0
    everything = tk.match(path, net, section="all")
    assert everything.match.filled == len(net.state_dict()) and not everything.fits
    assert all(source.startswith("model.") for source in everything.match.names.values())


@pytest.mark.parametrize(("count", "seconds"), [(500, 1), (20_000, 20)])
def test_what_does_not_fit_takes_no_longer(count, seconds):
    """Shifts and hints are looked for there; of the processor's time."""
    depth = count // 10 + 1
    one = {n: v for n, v in specs(Net(depth=1)).items() if n.startswith("layers.0.")}
    many = [{n.replace(".0.", f".{at + by}.", 1): v for at in range(depth) for n, v in one.items()}
            for by in (0, 1)]  # fmt: skip
    turned = {n: Spec(v.dtype, v.shape[::-1]) for n, v in many[0].items()}
    for file, model in (
        (under("module.", many[1]), many[0]),
        (many[0], turned),
    ):
        start = time.process_time()
        match = find_in(file, Wanted("the model", model))
        hints(match, file, model)
        assert time.process_time() - start < seconds
