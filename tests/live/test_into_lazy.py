"""Weights that are read when their module runs; and a model far larger than the memory."""

from __future__ import annotations

import gc
import json
import struct
from pathlib import Path

import pytest
import torch
from small_nets import Net, equal, net
from torch import nn

import tensorkeep as tk


def build() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8),
        nn.BatchNorm1d(8),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.Linear(8, 3),
    ).eval()


def empty() -> nn.Module:
    with tk.empty_weights():
        return build()


@pytest.fixture(scope="module")
def real() -> nn.Module:
    torch.manual_seed(1)
    return build()


@pytest.fixture(scope="module")
def path(real: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lazy") / "x.pth"
    torch.save(real.state_dict(), path)
    return path


@pytest.mark.parametrize("mmap", [False, True])
def test_the_same_numbers_and_nothing_left(real: nn.Module, path: Path, mmap: bool) -> None:
    model = empty()
    report = tk.load_into(model, path, lazy=True, mmap=mmap)
    assert report.lazy
    assert "are loaded when they are used" in str(report)
    x = torch.randn(5, 4)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(model(x), real(x))
            assert model[0].weight.is_meta
            assert model[2].self_attn.out_proj.weight.is_meta


def test_weights_are_let_go_of_after_an_error(path: Path) -> None:
    model = empty()
    tk.load_into(model, path, lazy=True)
    with pytest.raises(RuntimeError):
        model(torch.randn(5, 7))
    assert model[0].weight.is_meta
    assert model(torch.randn(5, 4)).shape == (5, 3)


def test_casts_happen_on_the_way(real: nn.Module, path: Path) -> None:
    model = empty().double()
    tk.load_into(model, path, lazy=True)
    x = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.allclose(model(x.double()).float(), real(x), atol=1e-5)


def test_a_later_load_ends_it(real: nn.Module, path: Path) -> None:
    model = empty()
    tk.load_into(model, path, lazy=True)
    tk.load_into(model, path)
    assert equal(model, real)
    assert not any(each._forward_pre_hooks for each in model.modules())


def test_real_weights_are_filled_at_once(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "x.pth")
    model = Net()
    tk.load_into(model, tmp_path / "x.pth", lazy=True)
    assert equal(model, net())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files of Linux")
def test_the_file_is_closed_with_the_last_module(path: Path) -> None:
    def files() -> int:
        gc.collect()
        links = Path("/proc/self/fd").iterdir()
        return sum(link.is_symlink() and link.readlink() == path for link in links)

    model = empty()
    tk.load_into(model, path, lazy=True)
    assert files() == 1
    layer = model[0]
    del model
    assert layer(torch.randn(5, 4)).shape == (5, 8)
    del layer
    assert files() == 0
    tk.load_into(build(), path, lazy=True)
    assert files() == 0


def test_tied_weights(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(x))

    real = Tied()
    torch.save(real.state_dict(), tmp_path / "x.pth")
    with tk.empty_weights():
        model = Tied()
    tk.load_into(model, tmp_path / "x.pth", lazy=True)
    x = torch.arange(5)
    assert torch.equal(model(x), real(x))
    assert model.head.weight is model.embed.weight


LAYERS, WIDTH = 40, 16384  # a GiB each, in float32


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 GiB of zeros that take no room: a safetensors file that is one hole."""
    path = tmp_path_factory.mktemp("huge") / "huge.safetensors"
    size = WIDTH * WIDTH * 4
    header = {
        f"{at}.weight": {
            "dtype": "F32",
            "shape": [WIDTH, WIDTH],
            "data_offsets": [at * size, (at + 1) * size],
        }
        for at in range(LAYERS)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + LAYERS * size)
    return path


def resident(path: Path) -> int:
    """Bytes of the file's mappings in this process that are in memory now."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()
        if not head[0].endswith(":"):
            inside = head[-1] == str(path)
        elif inside and head[0] == "Rss:":
            found += int(head[1]) << 10
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts pages of Linux")
@pytest.mark.parametrize("lazy", [False, True])
def test_one_layer_of_a_model_larger_than_memory(huge: Path, lazy: bool) -> None:
    gc.collect()  # the model of the run before holds itself
    with tk.empty_weights():
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    report = tk.load_into(model, huge, mmap=True, lazy=lazy)
    assert report.coverage["bytes"] == 1
    assert resident(huge) == 0
    weights = []
    layer = model[17]
    layer.register_forward_pre_hook(lambda module, _: weights.append(module.weight))
    # A row of the weight for each number that comes out: 64 rows of 64 KiB.
    layer.forward = lambda x: nn.functional.linear(x, layer.weight[:64])  # type: ignore[method-assign]
    with torch.no_grad():
        assert torch.equal(layer(torch.ones(1, WIDTH)), torch.zeros(1, 64))
    assert weights[0].shape == (WIDTH, WIDTH)
    assert 4 << 20 <= resident(huge) < 16 << 20
    weights.clear()
    if lazy:
        assert resident(huge) == 0
