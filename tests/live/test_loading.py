"""`load`: what the file holds, in memory of its own, and the same as torch gives."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tensorkeep as tk
from tensorkeep import errors


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(100, 33)
    return {
        "layer.weight": weight,
        "head.weight": weight,
        "layer.turned": weight.t(),
        "layer.part": weight[3:5, ::2],
        "layer.half": torch.randn(7).half(),
        "layer.bf16": torch.randn(5, 3).bfloat16(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.0),
        "count": torch.arange(5),
        "flag": torch.tensor([True, False, True]),
        "complex": torch.randn(4, dtype=torch.complex64).conj(),
    }


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save({"model": state(), "epoch": 3}, tmp_path / "model.pth")
    return tmp_path / "model.pth"


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_every_tensor_is_what_torch_loads(tmp_path: Path, mapped: bool, new: bool) -> None:
    torch.save(state(), tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    wanted = torch.load(tmp_path / "x.pth", weights_only=True)
    found = tk.load(tmp_path / "x.pth", mmap=mapped)
    assert list(found) == list(wanted)
    assert all(same(found[name], wanted[name]) for name in wanted)
    assert all(tensor.is_contiguous() for tensor in found.values())


@pytest.mark.parametrize("mapped", [False, True])
def test_tied_tensors_are_tied_again(path: Path, mapped: bool) -> None:
    found = tk.load(path, mmap=mapped)
    found["layer.weight"][0, 0] = 7
    assert found["head.weight"][0, 0] == 7
    assert found["layer.turned"][0, 0] != 7
    assert found["layer.weight"] is not found["head.weight"]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_tensor_owns_exactly_its_bytes(path: Path, mapped: bool) -> None:
    for tensor in tk.load(path, mmap=mapped).values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert tensor._base is None
        saved = io.BytesIO()
        torch.save(tensor, saved)
        assert saved.tell() < tensor.nbytes + 2500


def test_private_tensors_begin_at_multiples_of_64_bytes(path: Path, tmp_path: Path) -> None:
    save_file({name: torch.ones(3 + n) for n, name in enumerate("abcdef")}, tmp_path / "x.st")
    for file in (path, tmp_path / "x.st"):
        assert all(tensor.data_ptr() % 64 == 0 for tensor in tk.load(file).values())


def test_what_is_written_to_a_mapped_tensor_never_reaches_the_file(path: Path) -> None:
    before = path.read_bytes()
    found = tk.load(path, mmap=True)
    for tensor in found.values():
        tensor.zero_()
    assert path.read_bytes() == before


@pytest.mark.parametrize("mapped", [False, True])
def test_odd_addresses_of_a_safetensors_file(tmp_path: Path, mapped: bool) -> None:
    tensors = {"a": torch.ones(3, dtype=torch.int8), "b": torch.arange(5.0), "c": torch.ones(2)}
    header = b'{"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},'
    header += b'"b":{"dtype":"F32","shape":[5],"data_offsets":[3,23]},'
    header += b'"c":{"dtype":"F32","shape":[2],"data_offsets":[23,31]}}'
    data = b"".join(t.numpy().tobytes() for t in tensors.values())
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    found = tk.load(tmp_path / "x.safetensors", mmap=mapped)
    assert all(same(found[name], tensors[name]) for name in tensors)
    assert found["b"].data_ptr() % 4 == 0


def test_a_dtype_is_for_real_floating_point_tensors(path: Path) -> None:
    wanted = torch.load(path, weights_only=True)["model"]
    found = tk.load(path, dtype="bf16")
    for name, tensor in wanted.items():
        dtype = torch.bfloat16 if tensor.is_floating_point() else tensor.dtype
        assert same(found[name], tensor.to(dtype))
    assert found["layer.weight"].data_ptr() == found["head.weight"].data_ptr()
    with pytest.raises(errors.BadArgument):
        tk.load(path, dtype="int8")


def test_only_and_skip(path: Path) -> None:
    assert set(tk.load(path, only=["layer.*"], skip=["*.half"])) == {
        "layer.weight", "layer.turned", "layer.part", "layer.bf16",
    }  # fmt: skip
    with pytest.raises(errors.NothingSelected):
        tk.load(path, only=["nothing.*"])
    with pytest.raises(errors.BadArgument):
        tk.load(path, only="layer.weight")


def test_sources(path: Path) -> None:
    data = path.read_bytes()
    with path.open("rb") as file:
        for source in (str(path), path.as_uri(), data, bytearray(data), io.BytesIO(data), file):
            for mapped in (False, True):
                assert same(tk.load(source, mmap=mapped)["count"], torch.arange(5))


def test_shards(tmp_path: Path, path: Path) -> None:
    target = f"{tmp_path}/parts/"
    tk.convert(path, target, shard_size=8000, skip=["complex"])
    assert len(list(Path(target).iterdir())) > 2
    wanted = tk.load(path, skip=["complex"])
    for mapped in (False, True):
        found = tk.load(target, mmap=mapped)
        assert all(same(found[name], wanted[name]) for name in wanted)


def test_a_file_that_is_not_safe_loads_with_a_warning(hostile_digits: Path, digits: Path) -> None:
    wanted = tk.load(digits)
    with pytest.warns(errors.NotSafeWarning, match="is dangerous: would call os.system.*not|run"):
        found = tk.load(hostile_digits)
    assert all(same(found[name], wanted[name]) for name in wanted)


def test_a_view_beyond_its_storage_is_an_error(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(100.0)}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    assert data.count(b"Kd\x85") == 1
    (tmp_path / "y.pth").write_bytes(data.replace(b"Kd\x85", b"K\xff\x85"))
    with pytest.warns(errors.NotSafeWarning), pytest.raises(errors.ReadError):
        tk.load(tmp_path / "y.pth")


OUTLIVES = """
import gc, sys, torch, tensorkeep as tk
from tensorkeep.live import tensors
with tk.open(sys.argv[1]) as ckpt:
    mapped = sys.argv[2] == "mapped"
    found = tensors.load(ckpt.select("model"), mapped=mapped)
    sums = {name: tensor.sum() for name, tensor in found.items()}
del ckpt
kept = {name: found[name] for name in list(found)[::2]}
del found
gc.collect()
for name, tensor in kept.items():
    assert tensor.sum() == sums[name], name
    tensor += 1
print("alive")
"""


@pytest.mark.parametrize("way", ["private", "mapped"])
def test_memory_outlives_the_checkpoint(path: Path, way: str) -> None:
    # In a process of its own: what is wrong here ends in a segmentation fault.
    ended = subprocess.run(
        [sys.executable, "-c", OUTLIVES, str(path), way], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr


WITHOUT = """
import sys
sys.modules["torch"] = None
import tensorkeep as tk
try:
    tk.load(sys.argv[1])
except tk.TensorkeepError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("call", ["tk.load(sys.argv[1])", "tk.Int8Linear"])
def test_without_torch_the_error_says_what_to_install(path: Path, call: str) -> None:
    program = WITHOUT.replace("tk.load(sys.argv[1])", call)
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.startswith("MissingExtra"), ended.stderr
    assert "pip install 'tensorkeep[torch]'" in ended.stdout


def test_arrays_are_no_tensors_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in state().items() if name == "count"}
    torch.save({"model": arrays, "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(errors.NothingSelected, match=r"none, and 1 numpy arrays.*nested=True"):
        tk.load(tmp_path / "x.pth")
    nested = tk.load(tmp_path / "x.pth", nested=True)
    assert torch.equal(torch.from_numpy(nested["model"]["count"]), state()["count"])
