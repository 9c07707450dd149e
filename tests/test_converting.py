"""`convert`: what it takes, what it leaves and says so, and that a bad write is not kept."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tensorkeep as tk
from tensorkeep.errors import (
    AmbiguousSection,
    Amplified,
    Damaged,
    NothingSelected,
    NotSafe,
    SelectionError,
    StoreError,
    UnknownSection,
    Unwritable,
)
from tensorkeep.facts import Limits
from tensorkeep.stores.local import LocalSink


@pytest.fixture
def state():
    torch.manual_seed(0)
    base = torch.randn(8, 6)
    return {
        "encoder.weight": base,
        "encoder.bias": torch.randn(6),
        "encoder.steps": torch.tensor(5),
        "decoder.weight": base,
        "decoder.turned": base.t(),
    }


@pytest.fixture
def source(tmp_path, state):
    torch.save(state, tmp_path / "model.pth")
    return tmp_path / "model.pth"


@pytest.fixture
def training(tmp_path, state):
    path = tmp_path / "run.ckpt"
    torch.save({"model": state, "ema": dict(state), "epoch": 3, "args": {"lr": 1}}, path)
    return path


def equal(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


def test_to_safetensors_and_back(source, state, tmp_path):
    report = tk.convert(source, tmp_path / "a.safetensors")
    assert report.tensors == 5
    assert report.tied == {"encoder.weight": "decoder.weight"}
    flat = load_file(tmp_path / "a.safetensors")
    assert equal(flat, {k: v for k, v in state.items() if k != "encoder.weight"})
    tk.convert(tmp_path / "a.safetensors", tmp_path / "b.pth")
    back = torch.load(tmp_path / "b.pth", weights_only=True, mmap=True)
    assert equal(back, state)
    assert back["encoder.weight"].data_ptr() == back["decoder.weight"].data_ptr()


def test_left_out_is_listed(training, tmp_path):
    report = tk.convert(training, tmp_path / "a.safetensors")
    assert report.section == "model"
    left = dict(report.left_out)
    assert left.keys() == {"ema", "epoch", "args"}
    assert left["ema"] == "section of 5 tensors"
    assert left["epoch"] == "not a tensor"
    assert any("'model' taken as the weights" in note for note in report.notes)
    whole = tk.convert(training, tmp_path / "b.safetensors", section="all")
    assert whole.tensors == 10
    assert dict(whole.left_out).keys() == {"epoch", "args"}


def test_sections(training, tmp_path, state):
    tk.convert(training, tmp_path / "ema.pth", section="ema")
    assert equal(torch.load(tmp_path / "ema.pth"), state)
    with pytest.raises(UnknownSection, match="'model', 'ema', 'all'"):
        tk.convert(training, tmp_path / "x.pth", section="nope")
    torch.save({"generator": state, "discriminator": state}, tmp_path / "gan.pth")
    with pytest.raises(AmbiguousSection, match="--section"):
        tk.convert(tmp_path / "gan.pth", tmp_path / "x.pth")
    torch.save({"epoch": 1}, tmp_path / "none.pth")
    with pytest.raises(NothingSelected):
        tk.convert(tmp_path / "none.pth", tmp_path / "x.pth")


def test_only_and_skip(source, tmp_path):
    report = tk.convert(source, tmp_path / "a.pth", only=["encoder.*"], skip=["*.bias", "zzz*"])
    assert [row["name"] for row in report.outputs] == ["encoder.weight", "encoder.steps"]
    assert dict(report.left_out) == {
        "encoder.bias": "in --skip",
        "decoder.weight": "not in --only",
        "decoder.turned": "not in --only",
    }
    assert "no name matches 'zzz*'" in report.notes
    with pytest.raises(NothingSelected):
        tk.convert(source, tmp_path / "b.pth", only=["nothing*"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e4m3fn"])
def test_dtype(source, state, tmp_path, dtype):
    report = tk.convert(source, tmp_path / "a.pth", dtype=dtype, verify=True)
    wanted = getattr(torch, dtype)
    found = torch.load(tmp_path / "a.pth")
    assert found["encoder.steps"].dtype == torch.int64
    assert set(report.cast) == state.keys() - {"encoder.steps"} - report.tied.keys()
    for name in report.cast:
        bytes_ = (t.contiguous().view(torch.uint8) for t in (found[name], state[name].to(wanted)))
        assert torch.equal(*bytes_)


@pytest.mark.parametrize("dst", ["a.safetensors", "a.pth", "a/", "parts/"])
def test_a_dry_run_writes_nothing_and_says_what_the_real_run_does(training, tmp_path, dst):
    target, size = f"{tmp_path}/{dst}", "300" if dst == "parts/" else None
    before = sorted(tmp_path.iterdir())
    planned = tk.convert(training, target, shard_size=size, dry_run=True)
    assert sorted(tmp_path.iterdir()) == before
    report = tk.convert(training, target, shard_size=size)
    assert (planned.dry_run, report.dry_run) == (True, False)
    assert planned.outputs == report.outputs
    assert planned.files == report.files
    assert planned.left_out == report.left_out
    folder = tmp_path / dst if dst.endswith("/") else tmp_path
    assert all((folder / name).is_file() for name in report.files)
    assert (len(report.files) > 2) == (dst == "parts/")
    with tk.open(tmp_path / dst) as ckpt:
        written = [(ref.name, ref.dtype, list(ref.shape)) for ref in ckpt.tensors.values()]
    assert sorted(written) == sorted(
        (row["name"], row["dtype"], row["shape"]) for row in report.outputs
    )


@pytest.mark.parametrize("dst", ["a.safetensors", "a.pth", "a/"])
def test_verify_finds_a_write_that_went_wrong(source, tmp_path, monkeypatch, dst):
    real = LocalSink.write_at
    before = sorted(tmp_path.iterdir())

    def spoiled(sink, offset, data):
        data = bytearray(data)
        if offset > 0 and len(data) >= 24:
            data[11] ^= 1
        real(sink, offset, bytes(data))

    monkeypatch.setattr(LocalSink, "write_at", spoiled)
    with pytest.raises((Damaged, StoreError)) as caught:
        tk.convert(source, f"{tmp_path}/{dst}", verify=True)
    assert str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_verify_counts_what_it_compared(source, tmp_path):
    assert tk.convert(source, tmp_path / "a.pth").verified is None
    assert tk.convert(source, tmp_path / "b.pth", verify=True).verified == 4


def test_overwrite_keeps_the_old_file_until_the_new_one_is_whole(source, tmp_path, monkeypatch):
    old = tmp_path / "old.pth"
    old.write_bytes(b"old")

    def failing(sink, offset, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", lambda *arguments: failing(*arguments))
        with pytest.raises(StoreError):
            tk.convert(source, old, overwrite=True)
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth", "old.pth"]
    tk.convert(source, old, overwrite=True)
    assert len(torch.load(old)) == 5


def test_require_safe(hostile_digits, digits, tmp_path):
    with pytest.raises(NotSafe, match="os.system"):
        tk.convert(hostile_digits, tmp_path / "a.pth", require="safe")
    assert list(tmp_path.iterdir()) == []
    assert tk.convert(digits, tmp_path / "a.pth", require="safe").verdict == "safe"
    report = tk.convert(hostile_digits, tmp_path / "b.pth")
    assert report.verdict == "dangerous"
    assert "nothing of it was run" in " ".join(report.notes)
    assert tk.scan(tmp_path / "b.pth").verdict == "safe"
    assert (tmp_path / "b.pth").read_bytes() == (tmp_path / "a.pth").read_bytes()


def test_what_cannot_be_read_is_refused_or_dropped(tmp_path):
    torch.save({"a.w": torch.ones(2), "a.s": torch.eye(2).to_sparse()}, tmp_path / "x.pth")
    with pytest.raises(Unwritable, match="drop-unsupported"):
        tk.convert(tmp_path / "x.pth", tmp_path / "y.pth")
    report = tk.convert(tmp_path / "x.pth", tmp_path / "y.pth", drop_unsupported=True)
    assert any(name == "a.s" and "sparse COO" in why for name, why in report.left_out)
    assert torch.load(tmp_path / "y.pth").keys() == {"a.w"}


def test_names_that_are_no_unicode_go_to_torch_and_to_its_index(tmp_path):
    state = {"\ud800a": torch.ones(8), "b": torch.zeros(8)}
    torch.save(state, tmp_path / "x.pth")
    tk.convert(tmp_path / "x.pth", f"{tmp_path}/parts/", to="torch", shard_size="32")
    index = json.loads((tmp_path / "parts" / "pytorch_model.bin.index.json").read_text())
    assert list(index["weight_map"]) == list(state)
    tk.convert(tmp_path / "parts", tmp_path / "y.pth")
    assert equal(torch.load(tmp_path / "y.pth"), state)
    with pytest.raises(Unwritable, match="Unicode"):
        tk.convert(tmp_path / "x.pth", tmp_path / "y.safetensors")


def test_module_versions_are_kept_when_they_are_versions(tmp_path):
    model = torch.nn.BatchNorm1d(3)
    state = model.state_dict()
    torch.save(state, tmp_path / "x.pth")
    tk.convert(tmp_path / "x.pth", tmp_path / "y.pth")
    assert torch.load(tmp_path / "y.pth")._metadata == state._metadata
    state._metadata[""]["version"] = 1 << 4000
    torch.save(state, tmp_path / "x.pth")
    tk.convert(tmp_path / "x.pth", tmp_path / "z.pth")
    assert len(torch.load(tmp_path / "z.pth")) == 5


def test_report_as_json(training, tmp_path):
    report = tk.convert(training, tmp_path / "a.pth").to_dict()
    json.dumps(report, allow_nan=False)
    assert report["schema"] == 1
    assert report["tensors"][0].keys() == {"name", "from", "dtype", "shape", "bytes", "tied_to"}
    assert {"name": "epoch", "why": "not a tensor"} in report["left_out"]


def without_tensors():
    inner = nn.Sequential(nn.ReLU(), nn.Flatten())
    kept = nn.Identity()
    kept.register_buffer("cache", torch.ones(3), persistent=False)
    return nn.Sequential(nn.ReLU(), inner, nn.Dropout(), kept)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nn.Dropout, "0 tensors: the module has no parameters and no persistent buffers"),
        (nn.ModuleList, "0 tensors: the module has no parameters and no persistent buffers"),
        (without_tensors, "0 tensors: none of the 7 modules has parameters or persistent buffers"),
    ],
)
def test_a_whole_model_without_tensors_is_an_empty_file(tmp_path, make, words):
    model = make()
    torch.save(model, tmp_path / "model.pth")
    assert model.state_dict() == {}
    for name in ("out.safetensors", "out.pth", "parts/"):
        report = tk.convert(tmp_path / "model.pth", f"{tmp_path}/{name}", verify=True)
        assert words in report.notes
        assert (report.tensors, report.nbytes, report.verified) == (0, 0, 0)
    assert load_file(tmp_path / "out.safetensors") == {}
    assert load_file(tmp_path / "parts/model.safetensors") == {}
    assert torch.load(tmp_path / "out.pth", weights_only=True) == {}
    make().load_state_dict(torch.load(tmp_path / "out.pth"))
    assert tk.scan(tmp_path / "out.pth").verdict == "safe"


def hooked():
    model = nn.Sequential(nn.ReLU())
    model[0]._register_state_dict_hook(print)
    return model


NOTHING = {
    "dict": dict,
    "list": list,
    "ordered": OrderedDict,
    "below": lambda: {"model": nn.ReLU()},
    "section": lambda: {"state_dict": {}, "epoch": 3},
    "hooked": hooked,
    "lazy": lambda: nn.Sequential(nn.LazyLinear(3)),
}


@pytest.mark.parametrize("make", NOTHING.values(), ids=NOTHING.keys())
@pytest.mark.filterwarnings("ignore:Lazy modules.*:UserWarning")
def test_nothing_else_that_is_empty_is_a_success(tmp_path, make):
    torch.save(make(), tmp_path / "model.pth")
    for section in (None, "all"):
        with pytest.raises((SelectionError, Unwritable)):
            tk.convert(tmp_path / "model.pth", tmp_path / "out.safetensors", section=section)
    with pytest.raises(tk.TensorkeepError):
        tk.convert(tmp_path / "model.pth", tmp_path / "out.pth", drop_unsupported=True)
    assert not (tmp_path / "out.safetensors").exists() and not (tmp_path / "out.pth").exists()


def test_a_few_bytes_expanded_to_terabytes_are_not_written(tmp_path):
    source = tmp_path / "expanded.pth"
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20), "b": torch.ones(2)}, source)
    with pytest.raises(Amplified, match=r"times its \d+ bytes.*--skip"):
        tk.convert(source, tmp_path / "a.safetensors")
    assert tk.convert(source, tmp_path / "a.safetensors", skip=["a"]).tensors == 1
    larger = Limits(max_ratio=1 << 40)
    assert tk.convert(source, tmp_path / "b.safetensors", dry_run=True, limits=larger).tensors == 2
