"""`tk.save`: what torch and safetensors read back, and what stays when it fails."""

from __future__ import annotations

import json
import os
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import tensorkeep as tk
from tensorkeep.errors import AlreadyExists, BadArgument, NoSpace, Unwritable


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


@pytest.fixture
def model() -> Tied:
    torch.manual_seed(0)
    return Tied()


def same(got, expected) -> None:
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_safetensors_by_others_and_by_us(model, tmp_path) -> None:
    tk.save(model, tmp_path / "m.safetensors", metadata={"note": "ü"})
    own = model.state_dict()
    found = load_file(tmp_path / "m.safetensors")
    assert set(own) - set(found) == {"head.weight"}
    assert all(torch.equal(found[name], own[name]) for name in found)
    again = tk.load(tmp_path / "m.safetensors")
    assert set(again) == set(own)
    assert again["head.weight"].data_ptr() == again["embed.weight"].data_ptr()
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        said = file.metadata()
    assert said["note"] == "ü"
    facts = json.loads(said["tensorkeep.saved"])
    assert facts["torch"] == torch.__version__
    assert {"tensorkeep", "python", "git", "command"} <= set(facts)


def test_a_pth_is_read_by_torch(model, tmp_path) -> None:
    tk.save(model, tmp_path / "m.pth")
    found = torch.load(tmp_path / "m.pth", weights_only=True)
    same(found, model.state_dict())
    assert found._metadata["norm"] == {"version": 2}
    Tied().load_state_dict(found)


def test_a_training_checkpoint_is_nested_as_it_was(model, tmp_path) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.norm(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    value = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "history": [0.5, (1, "a", None)],
        "order": OrderedDict(b=1, a=2),
    }
    tk.save(value, tmp_path / "run.ckpt")
    found = torch.load(tmp_path / "run.ckpt", weights_only=True)
    same(found["model"], value["model"])
    fresh = torch.optim.AdamW(Tied().parameters())
    fresh.load_state_dict(found["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.1
    assert {k: found[k] for k in ("epoch", "history")} == {"epoch": 3, "history": value["history"]}
    assert list(found["order"].items()) == [("b", 1), ("a", 2)]
    with pytest.raises(Unwritable, match="nested"):
        tk.save(value, tmp_path / "run.safetensors")


TENSORS = {
    "turned": torch.arange(12.0).reshape(3, 4).t(),
    "gaps": torch.arange(12)[::3],
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
    "float8": torch.linspace(-1, 1, 3).to(torch.float8_e4m3fn),
    "conjugate": torch.complex(torch.linspace(0, 1, 4), torch.ones(4)).conj(),
    "expanded": torch.ones(2, 3).expand(4, 2, 3),
    "bool": torch.tensor([True, False]),
    "parameter": nn.Parameter(torch.linspace(0, 1, 2)),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_any_tensor(name, ending, tmp_path) -> None:
    tensor = TENSORS[name]
    path = tmp_path / f"one.{ending}"
    tk.save({"x": tensor}, path)
    read = load_file(path) if ending == "safetensors" else torch.load(path, weights_only=True)
    assert read["x"].dtype == tensor.dtype
    assert torch.equal(read["x"].to(torch.complex64), tensor.detach().to(torch.complex64))


def test_parts_with_an_index(model, tmp_path) -> None:
    big = {f"w{n}": torch.randn(100, 100) for n in range(5)}
    tk.save(big, f"{tmp_path}/parts/", shard_size="100kB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 3
    same(dict(sorted(tk.load(tmp_path / "parts").items())), big)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"x": torch.zeros(2, device="meta")}, "meta"),
        ({"x": torch.zeros(2).to_sparse()}, "sparse"),
        ({"a": {"b": [lambda: 0]}}, r"function.*a\.b\.0"),
        ({"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}, "twice"),
        ({}, "no tensor"),
    ],
)
def test_what_has_no_place_is_named(value, words, tmp_path) -> None:
    for name in ("x.safetensors", "x.pth"):
        if value or name == "x.safetensors":
            with pytest.raises(Unwritable, match=words):
                tk.save(value, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_old_file_stays_if_the_new_one_fails(model, tmp_path, monkeypatch) -> None:
    path = tmp_path / "m.safetensors"
    tk.save(model, path)
    before = path.read_bytes()

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpace):
        tk.save({"x": torch.zeros(3)}, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    with pytest.raises(AlreadyExists):
        tk.save(model, path, overwrite=False)
    tk.save({"x": torch.zeros(3)}, path)
    assert list(tk.load(path)) == ["x"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_arguments_that_mean_nothing(tmp_path) -> None:
    for target, options in (([1], {}), ({"x": torch.zeros(1)}, {"metadata": {"n": 3}})):
        with pytest.raises(BadArgument):
            tk.save(target, tmp_path / "x.pth", **options)
