"""Checkpoints in several files, with an index and without, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tensorkeep as tk
from tensorkeep.errors import (
    AlreadyExists,
    BadArgument,
    Damaged,
    LimitExceeded,
    NotACheckpoint,
    NotFound,
    ReadError,
    Unsupported,
)

KINDS = {"safetensors": ("model", "safetensors"), "torch": ("pytorch_model", "bin")}


@pytest.fixture
def tensors(random):
    made = {f"layer.{i}.w": random("float32", 10, 10, seed=i) for i in range(7)}
    return made | {"head.w": random("bfloat16", 3), "big.w": random("float64", 20, 20)}


@pytest.fixture
def sharded(save, tensors, tmp_path):
    """The tensors in parts of 1000 bytes, by us."""

    def make(kind):
        tk.convert(save(tensors), f"{tmp_path}/{kind}/", to=kind, shard_size=1000)
        return tmp_path / kind

    return make


def index_of(folder):
    path = next(Path(folder).glob("*.index.json"))
    return path, json.loads(path.read_text())


def same(path, tensors, bits):
    with tk.open(path) as ckpt:
        assert set(ckpt) == set(tensors)
        for name, tensor in tensors.items():
            assert ckpt[name].read() == bits(tensor), name
        return list(ckpt), ckpt.format, list(ckpt.contents.anomalies)


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_write_as_parts(sharded, tensors, bits, kind):
    folder = sharded(kind)
    stem, suffix = KINDS[kind]
    files = sorted(path.name for path in folder.iterdir())
    path, index = index_of(folder)
    assert path.name == f"{stem}.{suffix}.index.json"
    total = len(files) - 1
    parts = [f"{stem}-{n:05d}-of-{total:05d}.{suffix}" for n in range(1, total + 1)]
    assert files == sorted([*parts, path.name])
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    held = {}
    for part in parts:
        read = load_file if suffix == "safetensors" else torch.load
        content = read(folder / part)
        assert sum(t.nbytes for t in content.values()) <= 1000 or len(content) == 1
        held |= dict.fromkeys(content, part)
    assert held == index["weight_map"]
    for target in (folder, f"{folder}/", path):
        names, format_, anomalies = same(target, tensors, bits)
        assert names == list(tensors)
        assert (format_, anomalies) == (f"sharded_{'torch_zip' if suffix == 'bin' else kind}", [])
    assert tk.scan(folder).verdict == "safe"
    assert tk.verify(folder).ok


@pytest.mark.parametrize("kind", KINDS)
def test_parts_into_one_file_and_the_other_parts(sharded, tensors, bits, tmp_path, kind):
    folder = sharded(kind)
    for name in ("one.safetensors", "one.pth", "again/"):
        report = tk.convert(folder, f"{tmp_path}/{name}", verify=True)
        assert report.verified == len(tensors)
        same(tmp_path / name, tensors, bits)
    other = "torch" if kind == "safetensors" else "safetensors"
    tk.convert(folder, f"{tmp_path}/other/", to=other, shard_size="2KB")
    same(tmp_path / "other", tensors, bits)
    # Sums that the index of the source gave are not those of the target.
    with tk.open(tmp_path / "one.safetensors") as ckpt:
        assert ckpt.metadata == {"format": "pt"}


@pytest.mark.parametrize("kind", KINDS)
def test_numbered_parts_without_an_index(sharded, tensors, bits, kind):
    folder = sharded(kind)
    index_of(folder)[0].unlink()
    same(folder, tensors, bits)
    next(iter(sorted(folder.glob("*-00002-of-*")))).unlink()
    with pytest.raises(Damaged, match="parts 1 to"):
        tk.open(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_part(sharded, kind, tmp_path):
    folder = sharded(kind)
    lost = sorted(folder.glob("*-00003-of-*"))[0]
    lost.unlink()
    for verb in (tk.open, tk.inspect, lambda f: tk.convert(f, tmp_path / "out.pth")):
        with pytest.raises(Damaged, match=f"{lost.name} is missing"):
            verb(folder)
    assert not tk.verify(folder).ok
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_part(sharded, kind):
    folder = sharded(kind)
    part = sorted(folder.glob("*-00002-of-*"))[0]
    part.write_bytes(part.read_bytes()[:-30])
    with pytest.raises(Damaged) as caught:
        tk.open(folder)
    assert part.name in str(caught.value)


OUTSIDE = ["../secret.safetensors", "/etc/passwd", "sub/part", "..", ".", "", "a\\b", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE, ids=ascii)
def test_an_index_that_points_outside(sharded, tmp_path, random, name):
    folder = sharded("safetensors")
    save_file({"secret": random("int8", 3)}, tmp_path / "secret.safetensors")
    path, index = index_of(folder)
    index["weight_map"]["secret"] = name
    path.write_text(json.dumps(index))
    with pytest.raises(Damaged, match="outside its own folder"):
        tk.open(folder)


def test_a_tensor_that_no_part_has(sharded):
    folder = sharded("safetensors")
    path, index = index_of(folder)
    index["weight_map"]["ghost"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    with pytest.raises(Damaged, match="ghost"):
        tk.open(folder)


def test_a_tensor_listed_in_the_wrong_part(sharded):
    folder = sharded("safetensors")
    path, index = index_of(folder)
    first, *_, last = index["weight_map"]
    index["weight_map"][first] = index["weight_map"][last]
    path.write_text(json.dumps(index))
    with pytest.raises(Damaged, match="a part without it"):
        tk.open(folder)


def test_a_tensor_in_two_parts(sharded, tensors, bits):
    """The index decides; that a reader of the parts alone could take the other one is said."""
    folder = sharded("safetensors")
    parts = sorted(folder.glob("*-of-*.safetensors"))
    content = load_file(parts[-1])
    content["layer.0.w"] = torch.zeros(3)
    save_file(content, parts[-1])
    _, _, anomalies = same(folder, tensors, bits)
    assert [anomaly.kind for anomaly in anomalies] == ["tensor-in-two-parts"]
    assert [anomaly.kind for anomaly in tk.inspect(folder).anomalies] == ["tensor-in-two-parts"]
    assert not tk.verify(folder).ok


def test_a_tensor_that_the_index_does_not_list(sharded, tensors, bits):
    folder = sharded("torch")
    parts = sorted(folder.glob("*-of-*.bin"))
    content = torch.load(parts[0])
    content["extra.w"] = torch.zeros(3)
    torch.save(content, parts[0])
    _, _, anomalies = same(folder, tensors | {"extra.w": torch.zeros(3)}, bits)
    assert [anomaly.kind for anomaly in anomalies] == ["tensor-not-in-index"]


def test_the_same_tensor_in_two_unindexed_parts(sharded):
    folder = sharded("safetensors")
    index_of(folder)[0].unlink()
    parts = sorted(folder.glob("*-of-*.safetensors"))
    content = load_file(parts[-1])
    content["layer.0.w"] = torch.zeros(3)
    save_file(content, parts[-1])
    with tk.open(folder) as ckpt:
        assert ckpt["layer.0.w"].shape == (10, 10)
        assert [anomaly.kind for anomaly in ckpt.contents.anomalies] == ["tensor-in-two-parts"]


BAD_INDEXES = {
    "empty": b"",
    "not JSON": b"{",
    "no weight_map": b"{}",
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "weight_map is a list": b'{"weight_map": []}',
    "weight_map is text": b'{"weight_map": "model-00001-of-00002.safetensors"}',
    "weight_map of numbers": b'{"weight_map": {"a": 1}}',
    "weight_map of null": b'{"weight_map": {"a": null}}',
    "not UTF-8": b'{"weight_map": {"\xff": "a"}}',
    "deep": b'{"weight_map":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no tensors": b'{"weight_map": {}}',
}


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_malformed_indexes(sharded, case):
    folder = sharded("safetensors")
    path, _ = index_of(folder)
    path.write_bytes(BAD_INDEXES[case])
    for target in (folder, path):
        with pytest.raises(ReadError) as caught:
            tk.open(target)
        assert caught.value.expected and caught.value.got


def test_an_index_longer_than_the_limit(sharded):
    with pytest.raises(LimitExceeded):
        tk.open(sharded("safetensors"), limits=tk.Limits(max_json_bytes=50))


def test_an_index_named_that_is_not_there(tmp_path):
    with pytest.raises(NotFound):
        tk.open(tmp_path / "model.safetensors.index.json")


def test_odd_metadata_in_the_index_is_text(sharded, tensors, bits):
    folder = sharded("safetensors")
    path, index = index_of(folder)
    index["metadata"] = {"total_size": 1, "nested": {"a": [1]}, "none": None}
    path.write_text(json.dumps(index))
    same(folder, tensors, bits)
    with tk.open(folder) as ckpt:
        assert ckpt.metadata["none"] == "None"
    index["metadata"] = [1, 2]
    path.write_text(json.dumps(index))
    same(folder, tensors, bits)


def test_a_part_that_is_no_state_dict(sharded):
    folder = sharded("torch")
    torch.save([torch.ones(2)], sorted(folder.glob("*-of-*.bin"))[0])
    with pytest.raises(Unsupported, match="dict of tensors"):
        tk.open(folder)


def test_both_formats_side_by_side(sharded, tensors, bits):
    folder, other = sharded("safetensors"), sharded("torch")
    for path in other.iterdir():
        path.rename(folder / path.name)
    names, format_, _ = same(folder, tensors, bits)
    assert format_ == "sharded_safetensors"
    assert any("pytorch_model.bin.index.json" in note for note in tk.inspect(folder).notes)


def test_directories_without_and_with_too_many_checkpoints(tmp_path, random):
    with pytest.raises(NotACheckpoint, match="an empty one"):
        tk.open(tmp_path)
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(NotACheckpoint, match=r"readme\.md"):
        tk.open(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save({"w": random("int8", 2)}, tmp_path / name)
    with pytest.raises(BadArgument, match=r"a\.pth, b\.pth"):
        tk.open(tmp_path)
    (tmp_path / "b.pth").unlink()
    with tk.open(tmp_path) as ckpt:
        assert list(ckpt) == ["w"]


@pytest.mark.parametrize("kind", KINDS)
def test_ties_across_the_cut_stay_ties(random, save, tmp_path, bits, kind):
    shared = random("float32", 10, 10)
    tensors = {"a.w": shared, "b.w": random("float32", 10, 10, seed=1), "z.w": shared}
    tk.convert(save(tensors), f"{tmp_path}/out/", to=kind, shard_size=400)
    same(tmp_path / "out", tensors, bits)
    with tk.open(tmp_path / "out") as ckpt:
        tied = {name: ckpt[name].tied_to for name in ckpt if ckpt[name].tied_to}
        assert tied in ({"z.w": "a.w"}, {"a.w": "z.w"})
    assert len(list((tmp_path / "out").glob("*-of-00002.*"))) == 2
    tk.convert(tmp_path / "out", tmp_path / "one.pth")
    loaded = torch.load(tmp_path / "one.pth")
    assert loaded["a.w"].data_ptr() == loaded["z.w"].data_ptr()


def test_one_part_needs_no_index(random, save, tmp_path, bits):
    tensors = {"a.w": random("float32", 10)}
    report = tk.convert(save(tensors), f"{tmp_path}/out/", shard_size="5GB")
    assert report.files == ["model.safetensors"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    same(tmp_path / "out", tensors, bits)


def test_an_index_as_destination(random, save, tmp_path):
    path = tmp_path / "out" / "pytorch_model.bin.index.json"
    path.parent.mkdir()
    report = tk.convert(save({"a.w": random("int8", 3)}), path)
    assert (report.format, report.files) == ("torch_zip", ["pytorch_model.bin"])


def test_a_folder_with_other_things_in_it_is_left_alone(random, save, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    source = save({"a.w": random("int8", 3)})
    for overwrite in (False, True):
        with pytest.raises((AlreadyExists, BadArgument)):
            tk.convert(source, folder, overwrite=overwrite)
        assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_checkpoint_of_ours_is_replaced_when_asked(sharded, random, save, tmp_path, bits):
    folder = sharded("safetensors")
    fresh = {"a.w": random("int8", 3)}
    with pytest.raises(AlreadyExists):
        tk.convert(save(fresh), folder)
    tk.convert(save(fresh), folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    same(folder, fresh, bits)
