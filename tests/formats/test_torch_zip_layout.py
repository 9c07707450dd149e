"""A `.pth` that we write: what torch makes of it, and that nothing is lost on the way there."""

from __future__ import annotations

import io
import pickletools
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

import tensorkeep as tk
from tensorkeep.dtypes import BY_NAME
from tensorkeep.errors import Unwritable
from tensorkeep.formats.layout import Entry
from tensorkeep.formats.torch_zip_layout import problem

LOADED = [
    d.name
    for d in BY_NAME.values()
    if d.kind != "quantized" and not (d.kind == "bits" and d.name.startswith(("int", "uint")))
]
HELD = [name for name in LOADED if BY_NAME[name].safetensors]
NAMES = [
    "", "a", "b.weight", "ü.λ.漢字", "😀", 'quote"d', "tab\tnew\nline", "\x00", "\u202e",
    "a" * 70_000, "\ud800", "storage", "cpu", "torch._utils", "__metadata__",
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def rewritten(path, tmp_path, ending="pth", **options):
    target = tmp_path / f"ours.{ending}"
    tk.convert(path, target, **options)
    return target


def same(loaded, expected, bits):
    assert list(loaded) == list(expected)
    for name, tensor in expected.items():
        other = loaded[name]
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape), name
        assert bits(other) == bits(tensor), name
        assert other.is_contiguous() and not other.requires_grad


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("dtype", LOADED)
def test_torch_loads_what_we_write(random, save, tmp_path, bits, dtype, mmap):
    base = random(dtype, 5, 4, 3)
    tensors = {
        "m.scalar": random(dtype),
        "m.empty": random(dtype, 0, 3),
        "m.matrix": random(dtype, 3, 4),
        "m.transposed": random(dtype, 300, 7).t(),
        "m.expanded": random(dtype, 1, 5).expand(3, 5),
        "m.offset": base[2],
        "m.stepped": base[::2, 1:, ::2],
        "m.five": random(dtype, 1, 2, 1, 2, 3),
    }
    target = rewritten(save(tensors), tmp_path)
    loaded = torch.load(target, weights_only=True, mmap=mmap)
    same(loaded, tensors, bits)
    assert tk.scan(target).verdict == "safe"
    assert tk.verify(target).ok


@pytest.mark.parametrize("dtype", HELD)
def test_through_safetensors_and_back(random, save, tmp_path, bits, dtype):
    tensors = {"w.a": random(dtype, 3, 4), "w.b": random(dtype, 2, 6, 4).transpose(0, 2)}
    tensors["w.c"] = random(dtype, 0)
    middle = rewritten(save(tensors), tmp_path, "safetensors", verify=True)
    target = rewritten(middle, tmp_path, "pth", verify=True)
    assert {k: bits(v) for k, v in torch.load(target).items()} == {
        k: bits(v) for k, v in tensors.items()
    }


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_odd_names(random, save, tmp_path, bits, name):
    tensors = {name: random("int8", 3), "x.y": random("int8", 2)}
    target = rewritten(save(tensors), tmp_path, section="")
    same(torch.load(target, weights_only=True), tensors, bits)


def test_ties_share_their_storage(random, save, tmp_path, bits):
    shared = random("float32", 4, 3)
    tensors = {"z.w": shared, "a.w": shared, "m.view": shared.t(), "m.own": shared.clone()}
    for ending in ("pth", "safetensors"):
        path = rewritten(save(tensors), tmp_path, ending)
        if ending == "safetensors":
            path = rewritten(path, tmp_path)
        for mmap in (False, True):
            loaded = torch.load(path, weights_only=True, mmap=mmap)
            assert {k: bits(v) for k, v in loaded.items()} == {
                k: bits(v) for k, v in tensors.items()
            }
            places = {name: tensor.data_ptr() for name, tensor in loaded.items()}
            assert places["z.w"] == places["a.w"]
            assert len(set(places.values())) == 3
        path.unlink()
        assert sum(path.stat().st_size for path in tmp_path.glob("ours.*")) < 4000


def test_versions_and_order_are_kept(save, tmp_path, bits):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.MultiheadAttention(4, 2)
    )
    state = model.state_dict()
    for value in (state, {"epoch": 3, "state_dict": state}):
        target = rewritten(save(value), tmp_path)
        loaded = torch.load(target, weights_only=True)
        assert type(loaded) is OrderedDict
        assert loaded._metadata == state._metadata
        assert loaded._metadata["1"] == {"version": 2}
        same(loaded, state, bits)
        model.load_state_dict(loaded)
        with tk.open(target) as ckpt:
            assert ckpt.kind == "state_dict"
        target.unlink()


def test_a_plain_dict_stays_one(random, save, tmp_path):
    assert type(torch.load(rewritten(save({"a.b": random("int8", 1)}), tmp_path))) is dict


def test_attributes_that_are_no_versions_are_not_written(random, save, tmp_path):
    state = OrderedDict({"a.b": random("int8", 2)})
    state._metadata = OrderedDict({"": {"version": object}})
    loaded = torch.load(rewritten(save(state), tmp_path))
    assert not hasattr(loaded, "_metadata") or loaded._metadata == {}


def test_parameters_become_tensors(random, save, tmp_path, bits):
    tensors = {"a.p": torch.nn.Parameter(random("float32", 3)), "a.g": random("float32", 2)}
    loaded = torch.load(rewritten(save(tensors), tmp_path))
    assert type(loaded["a.p"]) is torch.Tensor
    assert bits(loaded["a.p"]) == bits(tensors["a.p"])


def test_more_names_than_one_batch(random, save, tmp_path, bits):
    tensors = {f"layer.{i}.w": random("int8", 1, seed=i) for i in range(2345)}
    same(torch.load(rewritten(save(tensors), tmp_path)), tensors, bits)


def test_large_and_small_sizes_in_the_pickle(random, save, tmp_path, bits):
    tensors = {f"n.{n}": random("uint8", n) for n in (0, 1, 255, 256, 65535, 65536, 70000)}
    tensors["n.empty"] = torch.empty(0, 2**31 - 1, 2**31, 0, dtype=torch.uint8)
    same(torch.load(rewritten(save(tensors), tmp_path)), tensors, bits)


@pytest.mark.parametrize("name", ["ours.pth", "ours.pt", "ours.bin", "ours.ckpt", "OURS.PTH"])
def test_every_ending(random, save, tmp_path, name):
    report = tk.convert(save({"a.b": random("int8", 3)}), tmp_path / name)
    assert report.format == "torch_zip"
    assert list(torch.load(tmp_path / name)) == ["a.b"]


def test_python_and_torch_agree_that_the_archive_is_sound(random, save, tmp_path):
    target = rewritten(save({"a.b": random("float64", 700), "a.c": random("int8", 0)}), tmp_path)
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        names = [name.partition("/")[2] for name in archive.namelist()]
        program = archive.read(archive.namelist()[0])
    assert names[0] == "data.pkl" and {"byteorder", "version", "data/0", "data/1"} < set(names)
    pickletools.dis(program, out=io.StringIO())
    reader = torch._C.PyTorchFileReader(str(target))
    assert set(reader.get_all_records()) == set(names)
    with tk.open(target) as ckpt:
        assert all(ckpt[name].record.storage.offset % 64 == 0 for name in ckpt)


def test_the_same_input_gives_the_same_bytes(random, save, tmp_path):
    path = save({f"a.{i}": random("float32", 40_000, seed=i) for i in range(20)})
    written = set()
    for number in range(3):
        target = tmp_path / f"{number}.pth"
        tk.convert(path, target)
        written.add(target.read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float64"])
def test_casts_are_those_of_torch(save, tmp_path, bits, dtype):
    torch.manual_seed(1)
    tensors = {
        "w.a": torch.randn(40, 30) * 1000,
        "w.t": torch.randn(40, 30).t(),
        "w.h": torch.randn(10).half(),
        "w.n": torch.arange(5),
    }
    target = rewritten(save(tensors), tmp_path, dtype=dtype)
    loaded = torch.load(target)
    wanted = getattr(torch, dtype)
    expected = {k: v.to(wanted) if v.is_floating_point() else v for k, v in tensors.items()}
    same(loaded, {k: v.contiguous() for k, v in expected.items()}, bits)


def test_storages_of_sub_byte_dtypes_are_refused(tmp_path):
    for name in ("int4", "uint7"):
        assert "cannot save" in problem(Entry("a", BY_NAME[name], (1,), 1))


def test_what_torch_refuses_with_weights_only_is_not_in_it(random, save, tmp_path):
    value = {"model": {"w": random("int8", 3)}, "what": Unwritable}
    target = rewritten(save(value), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(torch.load(target, weights_only=True)) == ["w"]


def test_from_the_official_library_to_torch(random, tmp_path, bits):
    tensors = {f"{dtype}.w": random(dtype, 2, 4) for dtype in HELD}
    path = tmp_path / "theirs.safetensors"
    save_file(tensors, path)
    loaded = torch.load(rewritten(path, tmp_path))
    assert {k: bits(v) for k, v in loaded.items()} == {k: bits(v) for k, v in tensors.items()}
