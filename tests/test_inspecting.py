"""`inspect`: the report, against what torch says of the same file."""

from __future__ import annotations

import json
import time

import pytest
import torch

import tensorkeep as tk
from tensorkeep.cli.output import show_json


@pytest.fixture
def training(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    path = tmp_path / "run.ckpt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}, path)
    return path


def test_a_state_dict(tmp_path):
    base = torch.randn(6, 4)
    state = {"a.w": base, "a.view": base[1:3], "b.t": base.t(), "tied": base, "n": torch.tensor(3)}
    torch.save(state, tmp_path / "x.pth")
    report = tk.inspect(tmp_path / "x.pth")
    assert (report.kind, report.container, report.format) == ("state_dict", "zip", "torch_zip")
    assert [tensor.name for tensor in report.tensors] == list(state)
    for tensor in report.tensors:
        twin = state[tensor.name]
        assert (tensor.shape, tensor.stride) == (tuple(twin.shape), twin.stride())
        assert tensor.offset == twin.storage_offset()
        assert f"torch.{tensor.dtype}" == str(twin.dtype)
        assert tensor.nbytes == twin.numel() * twin.element_size()
    assert report.tied == {"a.w": ["tied"]}
    assert len({tensor.storage for tensor in report.tensors}) == 2


def test_a_training_checkpoint(training):
    report = tk.inspect(training)
    assert report.kind == "training_checkpoint"
    assert report.weights == "model"
    assert [section.name for section in report.sections] == ["model", "optimizer"]
    assert report.values["epoch"] == 7
    assert report.nbytes == training.stat().st_size
    names = {tensor.name: report.parameters.get(tensor.name) for tensor in report.tensors}
    assert names["optimizer.state.0.exp_avg"] == "0.weight"
    assert names["model.0.weight"] is None


def test_no_tensor_byte_is_read(tmp_path):
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "x.pth")
    report = tk.inspect(tmp_path / "x.pth")
    assert report.nbytes > 4 << 20
    assert report.bytes_read < 100_000


def test_dead_storage(tmp_path):
    base = torch.zeros(10_000)
    torch.save({"w": base[:100]}, tmp_path / "x.pth")
    assert tk.inspect(tmp_path / "x.pth").dead_bytes == 39_600


def test_a_whole_model_says_what_it_is(tmp_path):
    module = torch.nn.Linear(2, 2)
    torch.save(module, tmp_path / "x.pth")
    report = tk.inspect(tmp_path / "x.pth")
    assert report.kind == "whole_model"
    assert "torch.nn.modules.linear.Linear" in report.globals
    assert report.weights == ""
    assert any("whole model" in note for note in report.notes)
    assert report.to_dict()["modules"] == [
        {
            "name": "",
            "class": "torch.nn.modules.linear.Linear",
            "training": True,
            "attributes": {"in_features": 2, "out_features": 2},
        }
    ]


def test_what_is_not_read_is_listed(tmp_path):
    sparse = torch.eye(3).to_sparse()
    torch.save({"a.w": torch.ones(2), "a.s": sparse}, tmp_path / "x.pth")
    report = tk.inspect(tmp_path / "x.pth")
    why = "sparse COO tensor float32 [3, 3], nnz 3, coalesced True"
    assert report.unread == [("a.s", why)]
    assert report.to_dict()["unread"] == [{"name": "a.s", "why": why}]
    (compound,) = report.to_dict()["compounds"]
    parts = compound.pop("parts")
    assert compound == {
        "name": "a.s",
        "layout": "sparse_coo",
        "dtype": "float32",
        "shape": [3, 3],
        "nnz": 3,
        "coalesced": True,
    }
    assert {name: (part["dtype"], part["shape"]) for name, part in parts.items()} == {
        "indices": ("int64", [2, 3]),
        "values": ("float32", [3]),
    }


def test_json_has_the_contract_s_keys_and_no_nan(training, tmp_path):
    report = tk.inspect(training).to_dict()
    wanted = ["schema", "path", "format", "container", "kind", "writer", "bytes", "sections"]
    wanted += ["tensors", "dead_bytes", "metadata", "globals", "bytes_read"]
    assert report.keys() >= set(wanted)
    json.dumps(report, allow_nan=False)
    torch.save({"w": torch.ones(1), "x": [float("nan"), 1 << 90, b"abc"]}, tmp_path / "x.pth")
    values = tk.inspect(tmp_path / "x.pth").to_dict()["values"]["x"]
    found = list(values.values()) if isinstance(values, dict) else values
    assert found == ["nan", 1 << 90, "<3 bytes>"]


def test_safetensors_metadata(tmp_path, digits):
    tk.convert(digits, tmp_path / "x.safetensors")
    report = tk.inspect(tmp_path / "x.safetensors")
    assert report.metadata["format"] == "pt"
    assert report.globals == []


def test_equal_blocks_are_folded(tmp_path):
    state = {f"layers.{i}.{n}": torch.ones(2) for i in range(12) for n in ("w", "b")}
    torch.save(state, tmp_path / "x.pth")
    (tree,) = tk.inspect(tmp_path / "x.pth").trees.values()
    (layers,) = tree
    (fold,) = layers.children
    assert (fold.label, fold.count, fold.tensors) == ("{0..11}", 12, 24)
    state["layers.5.w"] = torch.ones(3)
    torch.save(state, tmp_path / "x.pth")
    ((layers,),) = tk.inspect(tmp_path / "x.pth").trees.values()
    assert [child.label for child in layers.children] == ["{0..4}", "5", "{6..11}"]


def test_modules_without_tensors_have_a_tree(tmp_path):
    model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Flatten()))
    torch.save(model, tmp_path / "x.pth")
    ((section, nodes),) = tk.inspect(tmp_path / "x.pth").trees.items()
    assert (section, [node.type for node in nodes]) == (
        "",
        ["torch.nn.ReLU", "torch.nn.Sequential"],
    )
    assert [child.type for child in nodes[1].children] == ["torch.nn.Flatten"]
    torch.save({"net": model, "other": {"w": torch.ones(2)}}, tmp_path / "y.pth")
    assert list(tk.inspect(tmp_path / "y.pth").trees) == ["other", "net"]


def test_json_of_sections_and_tensors_has_a_line_for_each(tmp_path, capsys):
    state = {'a\n"b': {"w": torch.zeros(2)}, "é": {"x": torch.ones(3)}, "lr": [1, {"k": [2.5]}]}
    torch.save(state, tmp_path / "x.pth")
    report = tk.inspect(tmp_path / "x.pth").to_dict()
    show_json(report, rows=("sections", "tensors"))
    text = capsys.readouterr().out
    assert json.loads(text) == json.loads(json.dumps(report))
    assert [json.loads(line.rstrip(",")) for line in text.splitlines() if '"stride"' in line] == [
        json.loads(json.dumps(tensor)) for tensor in report["tensors"]
    ]
    show_json(report)
    assert capsys.readouterr().out == json.dumps(report, indent=2) + "\n"


def test_many_sections_cost_what_many_tensors_cost(tmp_path):
    tensor = torch.zeros(1)
    torch.save({f"part{n}": {"w": tensor} for n in range(20_000)}, tmp_path / "x.pth")
    began = time.process_time()
    report = tk.inspect(tmp_path / "x.pth")
    assert len(report.sections) == len(report.trees) == 20_000
    # A search through all tensors for each section took more than a minute.
    assert time.process_time() - began < 15
