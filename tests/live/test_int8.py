"""Layers of codes: files of `quantize` go in as they are, and they give what floats give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tensorkeep as tk
from tensorkeep import errors


class Net(nn.Module):
    """Layers that can be replaced, one that is too small, one that shares, and one used whole."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(96, 64)
        self.up = nn.Linear(64, 96)
        self.down = nn.Linear(96, 64, bias=False)
        self.encoder = nn.TransformerEncoderLayer(64, 4, 96, batch_first=True)
        self.small = nn.Linear(64, 3)
        self.head = nn.Linear(64, 96, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of [batch, length]."""
        x = self.encoder(self.down(self.up(self.embed(tokens)).relu()))
        return self.head(x), self.small(x)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    torch.save(nn.DataParallel(Net()).state_dict(), folder / "net.pth")
    tk.quantize(folder / "net.pth", folder / "int8.safetensors", embeddings=True, lm_head=True)
    return folder / "int8.safetensors"


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"lazy": True}])
def test_codes_give_what_floats_give(
    quantised: Path, empty: bool, options: dict[str, bool]
) -> None:
    floats, codes = Net(1).eval(), Net(2).eval()
    if empty:
        with tk.empty_weights():
            codes = Net(2).eval()
    tk.load_into(floats, quantised)
    assert tk.replace_linear(codes, quantised) == ["up", "down"]
    report = tk.load_into(codes, quantised, **options)
    assert report.fits
    assert "encoder.linear1.weight" in report.dequantised
    assert "up.weight" not in report.dequantised
    assert isinstance(codes.up, tk.Int8Linear)
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        for one, other in zip(floats(tokens), codes(tokens), strict=True):
            assert torch.equal(one, other)


def test_the_state_dict_is_the_file(quantised: Path) -> None:
    model = Net(2)
    tk.replace_linear(model, quantised)
    tk.load_into(model, quantised)
    told, state = load_file(quantised), model.state_dict()
    for name in ("up.weight", "up.weight_scale", "up.bias", "down.weight", "down.weight_scale"):
        assert state[name].dtype == told[f"module.{name}"].dtype
        assert torch.equal(state[name], told[f"module.{name}"])
    assert "down.bias" not in state


def test_half_inputs_give_half_outputs(quantised: Path) -> None:
    model = Net(2)
    tk.replace_linear(model, quantised)
    tk.load_into(model, quantised)
    down = model.down(torch.ones(2, 96, dtype=torch.bfloat16))
    assert down.dtype == torch.bfloat16


def test_a_file_without_codes_replaces_nothing(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "net.pth")
    model = Net(1)
    with pytest.raises(errors.NothingSelected, match="int8 weights, with scales"):
        tk.replace_linear(model, tmp_path / "net.pth")
    assert type(model.up) is nn.Linear
