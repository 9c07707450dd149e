"""torch's oldest format: put together by hand, loaded by torch, read the same."""

import importlib.util
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
