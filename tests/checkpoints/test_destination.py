"""What a destination asks for, and what is refused before anything is written."""

from __future__ import annotations

import os

import pytest
import torch

import tensorkeep as tk
from tensorkeep.checkpoints.destination import DEFAULT_SHARD, resolve, shard_bytes
from tensorkeep.errors import AlreadyExists, BadArgument, NotSafe, UnknownScheme, Unwritable


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "in.pth"
    torch.save({"a.w": torch.randn(10, 10), "a.b": torch.randn(10)}, path)
    return path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        (7, 7),
        ("5GB", 5_000_000_000),
        ("5gb", 5_000_000_000),
        ("1.5KB", 1500),
        ("500MB", 500_000_000),
        ("2TB", 2_000_000_000_000),
        (" 10 K ", 10_000),
        ("1KiB", 1024),
        ("1.5 MiB", 1_572_864),
        ("1GiB", 1 << 30),
        ("12B", 12),
    ],
)
def test_sizes(text, size):
    assert shard_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "5XB", "GB", "1e9", "5GBB", "0.1", "nan", "٣KB x"])
def test_what_is_no_size(text):
    with pytest.raises(BadArgument, match="5GB or 500MiB"):
        shard_bytes(text)


def test_what_a_destination_asks_for(tmp_path):
    def asked(name, to=None, size=None):
        found = resolve(f"{tmp_path}/{name}", to, size)
        return found.path.name, found.kind.name, found.shard_size

    assert asked("a.safetensors") == ("a.safetensors", "safetensors", None)
    assert asked("a.PTH") == ("a.PTH", "torch_zip", None)
    assert asked("a.ckpt") == ("a.ckpt", "torch_zip", None)
    assert asked("a.any", to="torch") == ("a.any", "torch_zip", None)
    assert asked("a.pth", to="safetensors") == ("a.pth", "safetensors", None)
    assert asked("out/") == ("out", "safetensors", DEFAULT_SHARD)
    assert asked("out/", "pt", "1KB") == ("out", "torch_zip", 1000)
    (tmp_path / "folder").mkdir()
    assert asked("folder") == ("folder", "safetensors", DEFAULT_SHARD)
    assert asked("x/pytorch_model.bin.index.json") == ("x", "torch_zip", DEFAULT_SHARD)
    assert asked("x/model.safetensors.index.json") == ("x", "safetensors", DEFAULT_SHARD)


@pytest.mark.parametrize("name", ["out", "out.onnx", "out.", ".hidden"])
def test_endings_that_say_nothing(source, tmp_path, name):
    with pytest.raises(BadArgument, match="--to"):
        tk.convert(source, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_options_that_mean_nothing(source, tmp_path):
    with pytest.raises(BadArgument, match="a slash"):
        tk.convert(source, tmp_path / "out.pth", shard_size="1KB")
    with pytest.raises(BadArgument, match="one of safetensors"):
        tk.convert(source, tmp_path / "out.pth", to="onnx")
    with pytest.raises(UnknownScheme):
        tk.convert(source, "s3://bucket/out.pth")
    with pytest.raises(BadArgument, match="a file to write"):
        tk.convert(source, "-")
    for dtype in ("int8", "float31", "", "complex64", "bool"):
        with pytest.raises(BadArgument, match="floating point"):
            tk.convert(source, tmp_path / "out.pth", dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_what_exists_stays(source, tmp_path):
    target = tmp_path / "out.pth"
    target.write_bytes(b"mine")
    with pytest.raises(AlreadyExists, match="--overwrite"):
        tk.convert(source, target)
    assert target.read_bytes() == b"mine"
    tk.convert(source, target, overwrite=True)
    assert set(torch.load(target)) == {"a.w", "a.b"}


def test_the_source_is_never_the_destination(source, tmp_path):
    before = source.read_bytes()
    (tmp_path / "link.pth").symlink_to(source)
    os.link(source, tmp_path / "hard.pth")
    for name in ("in.pth", "link.pth", "hard.pth", "./in.pth"):
        with pytest.raises(AlreadyExists, match="the source itself"):
            tk.convert(source, f"{tmp_path}/{name}", overwrite=True)
    assert source.read_bytes() == before


def test_a_dry_run_writes_nothing_and_says_the_same(source, tmp_path):
    before = ["in.pth"]
    for name, files in (("out.safetensors", ["out.safetensors"]), ("out/", ["model.safetensors"])):
        dry = tk.convert(source, f"{tmp_path}/{name}", dry_run=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        real = tk.convert(source, f"{tmp_path}/{name}")
        left, right = dry.to_dict(), real.to_dict()
        assert left.pop("dry_run") is True and right.pop("dry_run") is False
        assert left == right and real.files == files
        before.append("out.safetensors")


def test_require_safe(source, hostile_digits, tmp_path):
    tk.convert(source, tmp_path / "good.pth", require="safe")
    with pytest.raises(NotSafe):
        tk.convert(hostile_digits, tmp_path / "bad.pth", require="safe")
    assert not (tmp_path / "bad.pth").exists()
    report = tk.convert(hostile_digits, tmp_path / "bad.pth")
    assert report.verdict == "dangerous"
    assert any("nothing of it was run" in note for note in report.notes)
    assert tk.scan(tmp_path / "bad.pth").verdict == "safe"


def test_dtypes_that_do_not_cast(tmp_path):
    torch.save(
        {"a.w": torch.zeros(2, 2, dtype=torch.uint8).view(torch.float8_e8m0fnu)},
        tmp_path / "in.pth",
    )
    report = tk.convert(tmp_path / "in.pth", tmp_path / "out.pth", dtype="float32")
    assert report.cast == ["a.w"]
    with pytest.raises((Unwritable, BadArgument)):
        tk.convert(tmp_path / "in.pth", tmp_path / "out4.pth", dtype="float4_e2m1fn_x2")


def test_a_damaged_source_leaves_nothing(tmp_path):
    path = tmp_path / "in.pth"
    torch.save({"a.w": torch.randn(10), "a.x": torch.randn(20)}, path)
    data = bytearray(path.read_bytes())
    # The size of the second tensor: one element more than its storage has.
    assert data.count(b"K\x14\x85") == 1
    path.write_bytes(data.replace(b"K\x14\x85", b"K\x15\x85"))
    found = {anomaly.kind for anomaly in tk.inspect(path).anomalies}
    assert found == {"bad-checksum", "storage-out-of-bounds"}
    for name in ("out.safetensors", "out.pth", "out/"):
        with pytest.raises(tk.TensorkeepError):
            tk.convert(path, f"{tmp_path}/{name}", drop_unsupported=True)
        assert [entry.name for entry in tmp_path.iterdir()] == ["in.pth"]
