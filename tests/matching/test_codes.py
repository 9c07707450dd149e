"""int8 files against models of floats: they fit after the scales were multiplied in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tensorkeep as tk
from tensorkeep.edits.dequantized import Dequantize
from tensorkeep.edits.recipe import write_recipe
from tensorkeep.live.int8 import replace_linear

sys.path.insert(0, str(Path(__file__).resolve().parent))

from match_nets import rules  # noqa: E402


def net(out=64):
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, out), nn.LayerNorm(out))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes")
    torch.save(nn.DataParallel(net()).state_dict(), folder / "net.pth")
    tk.quantize(folder / "net.pth", folder / "int8.safetensors")
    return folder / "int8.safetensors"


def test_it_fits_as_floats_and_the_recipe_makes_them(quantised, tmp_path):
    report = tk.match(quantised, net())
    assert report.fits and report.match.unexpected == []
    assert rules(report.match) == [
        "make float32 of int8 codes and their scales", "strip `module.`",
    ]  # fmt: skip
    told = report.to_dict()
    assert told["dequantised"] == ["module.0.weight", "module.2.weight"] and told["cast"] == []
    assert told["rules"][0] == {"op": "dequantize"}
    write_recipe(tmp_path / "floats.toml", report.recipe)
    tk.convert(quantised, tmp_path / "floats.pth", recipe=tmp_path / "floats.toml")
    net().load_state_dict(torch.load(tmp_path / "floats.pth"))
    model = net()
    assert tk.load_into(model, quantised).fits
    for name, tensor in torch.load(tmp_path / "floats.pth").items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_the_model_s_own_floats(quantised):
    report = tk.match(quantised, net().bfloat16())
    assert report.fits and report.match.rules[0] == Dequantize("bfloat16")
    assert "0.weight" not in report.match.cast and "0.bias" in report.match.cast


def test_a_head_of_another_size_is_a_mismatch_of_floats(quantised):
    report = tk.match(quantised, net(32))
    assert [one.name for one in report.match.mismatched] == ["2.weight", "2.bias", "3.weight",
                                                              "3.bias"]  # fmt: skip
    assert report.match.unexpected == []


@pytest.mark.parametrize(
    "odd",
    [
        {"0.weight_zero_point": torch.zeros(96, 1, dtype=torch.int8)},
        {"0.weight_scale": torch.ones(96, 2)},  # by groups
        {"0.weight_scale": torch.ones(96, 1, dtype=torch.int32)},
    ],
)
def test_what_codes_mean_is_not_guessed(odd, tmp_path):
    state = net().state_dict()
    codes = {"0.weight": torch.zeros(96, 64, dtype=torch.int8), "0.weight_scale": torch.ones(96, 1)}
    torch.save(state | codes, tmp_path / "known.pth")
    assert tk.match(tmp_path / "known.pth", net()).fits
    torch.save(state | codes | odd, tmp_path / "odd.pth")
    report = tk.match(tmp_path / "odd.pth", net())
    assert not report.fits and set(report.match.unexpected) == {"0.weight_scale", *odd}


def test_codes_for_codes(quantised):
    assert tk.match(quantised, quantised).match.rules == []
    model = net()
    assert replace_linear(model, quantised) == ["0", "2"]
    assert tk.match(quantised, model).fits
