"""`load_into` of what `quantize` wrote: floats for a module of floats, codes for one of codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tensorkeep as tk
from tensorkeep import errors


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.LayerNorm(64))


def floats(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the codes stand for, by torch."""
    scale = "_scale"
    return {
        name: tensor.float() * tensors[name + scale] if name + scale in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(scale)
    }


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    torch.save(nn.DataParallel(net()).state_dict(), folder / "net.pth")
    tk.quantize(folder / "net.pth", folder / "int8.safetensors")
    return folder / "int8.safetensors"


def bare() -> nn.Sequential:
    with tk.empty_weights():
        return net(1)


@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"assign": True}, {"lazy": True}])
@pytest.mark.parametrize("make", [bare, lambda: net(1)], ids=["empty", "real"])
def test_a_float_model_gets_floats(quantised: Path, make, options: dict[str, bool]) -> None:
    model = make()
    report = tk.load_into(model, quantised, **options)
    wanted = net(2)
    wanted.load_state_dict(
        {name[7:]: tensor for name, tensor in floats(load_file(quantised)).items()}
    )
    x = torch.randn(4, 64)
    with torch.no_grad():
        assert torch.equal(model(x), wanted(x))
    assert report.fits
    assert report.dequantised == report.to_dict()["dequantised"] == ["0.weight", "2.weight"]
    assert "int8 times its scale became floats: `0.weight`, `2.weight`." in str(report)


def test_half_models_get_the_floats_cast(quantised: Path) -> None:
    model = net(1).to(torch.bfloat16)
    report = tk.load_into(model, quantised)
    told = floats(load_file(quantised))
    assert torch.equal(model[0].weight, told["module.0.weight"].to(torch.bfloat16))
    assert "0.weight" in [one.name for one in report.cast]


def test_exact_takes_no_codes_for_floats(quantised: Path) -> None:
    model = net(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(errors.DoesNotFit):
        tk.load_into(model, quantised, dtype="exact")
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


class Codes(nn.Module):
    """A linear layer that keeps codes, as other libraries have them."""

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out, into, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.zeros(out, 1))
        self.bias = nn.Parameter(torch.zeros(out))


def test_what_has_a_place_for_codes_gets_them_and_the_rest_floats(quantised: Path) -> None:
    model = net(1)
    model[0] = Codes(96, 64)
    report = tk.load_into(model, quantised)
    told = load_file(quantised)
    assert report.fits
    assert report.dequantised == ["2.weight"]
    assert torch.equal(model[0].weight, told["module.0.weight"])
    assert torch.equal(model[0].weight_scale, told["module.0.weight_scale"])
    assert torch.equal(model[2].weight, floats(told)["module.2.weight"])


@pytest.mark.parametrize(
    "beside",
    [
        {"weight_scale": torch.ones(3, 2), "weight_zero_point": torch.zeros(3, 2)},
        {"weight_scale": torch.ones(3, 2)},
        {"weight_scale": torch.ones(3, 1, dtype=torch.int32)},
    ],
)
def test_codes_of_another_meaning_are_refused(
    tmp_path: Path, beside: dict[str, torch.Tensor]
) -> None:
    file = {"weight": torch.ones(3, 4, dtype=torch.int8), "bias": torch.zeros(3)}
    save_file(file | beside, tmp_path / "other.safetensors")
    model = nn.Linear(4, 3)
    before = model.weight.clone()
    with pytest.raises(errors.DoesNotFit, match="MISMATCH in dtype: int8"):
        tk.load_into(model, tmp_path / "other.safetensors", strict=False)
    assert torch.equal(model.weight, before)


def test_bytes_are_those_that_were_read(quantised: Path) -> None:
    with tk.open(quantised) as ckpt:
        read = sum(ckpt[name].nbytes for name in ckpt)
    assert tk.load_into(net(1), quantised).bytes == read
