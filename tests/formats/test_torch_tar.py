"""torch's oldest format: put together by hand, loaded by torch, read the same."""

import importlib.util
import pickle
import tarfile
from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import Damaged


@pytest.fixture(scope="module")
def writer():
    path = Path(__file__).parents[1] / "corpus/torch_tar/make.py"
    spec = importlib.util.spec_from_file_location("old_tars", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_tensors_as_torch_loads_them(agree, writer, random, tmp_path, protocol, layout):
    base = random("float32", 4, 6)
    values = {"a": base, "b": base.t(), "c": base[1:3, 2:], "n": random("int64", 7), "epoch": 4}
    tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
    path = tmp_path / "model.pth"
    members = writer.members(values, tensors, protocol=protocol)
    path.write_bytes(writer.packed(members, layout))
    assert set(agree(path)) == {"a", "b", "c", "n"}
    assert tk.scan(path, deep=True).verdict == "safe"
    assert tk.inspect(path).format == "torch_tar"


def test_views_of_storages(writer, tmp_path):
    base = torch.arange(8.0)
    members = writer.members({"w": base}, [base], views=[(5, 0, 2, 4)])
    path = tmp_path / "model.pth"
    path.write_bytes(writer.packed(members))
    torch.load(path, weights_only=False)
    with tk.open(path) as ckpt:
        assert ckpt["w"].numpy().tolist() == base.tolist()
    members = writer.members({"w": base}, [base], views=[(5, 0, 6, 4)])
    path.write_bytes(writer.packed(members))
    with pytest.raises(Damaged, match="view inside its storage"):
        tk.open(path)


def without(members, *names):
    return {name: data for name, data in members.items() if name not in names}


@pytest.mark.parametrize("missing", [("tensors",), ("pickle",), ("tensors", "pickle")])
def test_the_loader_has_run_storages_before_it_misses_another(writer, tmp_path, missing):
    members = writer.members({}, [])
    count = pickle.dumps(0, 2)
    members["storages"] = count + b"\x80\x02]cos\ngetpid\n)Ra."
    members["tensors"] = count
    path = tmp_path / "model.pth"
    path.write_bytes(writer.packed(without(members, *missing)))
    with pytest.raises((KeyError, TypeError)):  # a list of views that are none, or no member
        torch.load(path, weights_only=False)
    report = tk.scan(path)
    assert report.files[0].format == "torch_tar"
    assert report.verdict == "dangerous"
    with pytest.raises(Damaged):
        tk.open(path)


def test_what_is_missing_is_said(writer, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(writer.packed(without(writer.members({}, []), "tensors")))
    with pytest.raises(KeyError, match="tensors"):
        torch.load(path, weights_only=False)
    with pytest.raises(Damaged, match="expected members storages, tensors, pickle.*got no member"):
        tk.open(path)
    assert tk.scan(path).verdict == "unknown"


def test_without_storages_the_loader_runs_nothing_and_it_is_a_bundle(writer, tmp_path):
    base = torch.arange(8.0)
    members = writer.members({"w": base}, [base])
    torch.save({"w": base}, tmp_path / "inner.pth")
    members["model_weights.ckpt"] = (tmp_path / "inner.pth").read_bytes()
    path = tmp_path / "model.tar"
    path.write_bytes(writer.packed(without(members, "storages")))
    with pytest.raises(KeyError, match="storages"):
        torch.load(path, weights_only=False)
    assert tk.inspect(path).format == "bundle"


def test_a_member_named_storages_that_is_no_pickle_is_a_bundles(writer, tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "inner.pth")
    members = {"storages": b"bought in spring\n", "w.pth": (tmp_path / "inner.pth").read_bytes()}
    path = tmp_path / "model.tar"
    path.write_bytes(writer.packed(members))
    assert tk.inspect(path).format == "bundle"
