"""DST: refused in words before any work, or written whole; the source is never harmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import (
    AccessDenied,
    AlreadyExists,
    BadArgument,
    ChangedWhileRead,
    NoSpace,
    NotFound,
    TensorkeepError,
    Unwritable,
)
from tensorkeep.progress import Reporter

MiB = 1 << 20


@pytest.fixture
def source(tmp_path):
    torch.save({f"w{i}": torch.randn(64, 64) for i in range(8)}, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def listed(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "dotted"])
def test_dst_is_src(source, command, link, overwrite):
    folder, other = source.parent, source.parent / "other.pth"
    before = source.read_bytes()
    if link == "symlink":
        other.symlink_to(source)
    elif link == "hardlink":
        other.hardlink_to(source)
    names = listed(folder)
    target = {"same": source, "dotted": folder / "." / ".." / folder.name / "model.pth"}
    with pytest.raises(AlreadyExists):
        tk.convert(source, target.get(link, other), overwrite=overwrite)
    flags = ["--overwrite"] if overwrite else []
    done = command("convert", *flags, source, target.get(link, other), cwd=folder)
    assert done.code == 2
    assert "the source itself" in done.sentence()
    assert source.read_bytes() == before
    assert listed(folder) == names


def test_dst_is_a_part_of_src_or_its_folder(source, tmp_path):
    tk.convert(source, f"{tmp_path}/parts/", shard_size="40KB")
    parts = tmp_path / "parts"
    names = listed(parts)
    assert len(names) == 5
    index = parts / "model.safetensors.index.json"
    for src in (parts, index):
        for dst in (parts / names[0], f"{parts}/", index):
            with pytest.raises(AlreadyExists):
                tk.convert(src, dst, overwrite=True)
    alone = tmp_path / "alone"
    tk.convert(source, f"{alone}/")
    with pytest.raises(AlreadyExists):
        tk.convert(alone / "model.safetensors", f"{alone}/", overwrite=True)
    assert listed(parts) == names
    assert listed(alone) == ["model.safetensors"]


def test_dst_is_what_stdin_reads(source):
    with source.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "tensorkeep", "convert", "-", str(source), "--overwrite"],
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "the source itself" in done.stderr


def test_dst_exists(source, command):
    out = source.parent / "out.safetensors"
    out.write_text("precious")
    done = command("convert", source, out, cwd=source.parent)
    assert done.code == 2
    assert "--overwrite" in done.sentence()
    assert out.read_text() == "precious"
    folder = source.parent / "full"
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(AlreadyExists):
            tk.convert(source, f"{folder}/", overwrite=overwrite)
    with pytest.raises(AlreadyExists):
        tk.convert(source, f"{folder}/", dry_run=True)
    assert listed(folder) == ["notes.txt"]
    dangling = source.parent / "dangling.safetensors"
    dangling.symlink_to("nowhere")
    with pytest.raises(AlreadyExists):
        tk.convert(source, dangling)


@pytest.mark.parametrize("dry_run", [False, True])
def test_dst_folder_is_missing(source, tmp_path, dry_run):
    for dst in (tmp_path / "no" / "out.pth", f"{tmp_path}/no/parts/", source / "out.pth"):
        with pytest.raises(NotFound) as caught:
            tk.convert(source, dst, dry_run=dry_run)
        assert caught.value.remedy
    assert listed(tmp_path) == ["model.pth"]


@pytest.mark.parametrize(
    ("dst", "options", "words"),
    [
        ("out.onnx", {}, "--to"),
        ("out", {}, "--to"),
        ("out.safetensors", {"to": "gguf"}, "one of safetensors"),
        ("out.safetensors", {"shard_size": "1GB"}, "out/"),
        ("out/", {"shard_size": "lots"}, "such as 5GB"),
        ("out/", {"shard_size": "0"}, "such as 5GB"),
        ("out/", {"shard_size": "-5GB"}, "such as 5GB"),
        ("out/", {"shard_size": ""}, "such as 5GB"),
        ("out.pth", {"dtype": "int8"}, "floating point"),
        ("out.pth", {"dtype": "float99"}, "floating point"),
        ("-", {}, "standard output"),
        ("", {}, "path"),
        ("a\0b.pth", {}, "path"),
    ],
)
def test_options_that_mean_nothing(source, tmp_path, monkeypatch, dst, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadArgument) as caught:
        tk.convert(source, dst, **options)
    assert words in str(caught.value)
    assert listed(tmp_path) == ["model.pth"]


def test_what_dst_cannot_hold_is_refused_before_a_byte_is_written(tmp_path, command):
    whole = torch.ones(2, dtype=torch.complex64)
    with warnings.catch_warnings(action="ignore"):  # torch calls complex32 experimental
        torch.save({"w": torch.ones(2), "z": whole.to(torch.complex32)}, tmp_path / "a.pth")
    done = command("convert", "a.pth", "a.safetensors", cwd=tmp_path)
    assert done.code == 2
    assert "complex32" in done.sentence()
    assert "--drop-unsupported" in done.err
    with pytest.raises(Unwritable):
        tk.convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert listed(tmp_path) == ["a.pth"]
    report = tk.convert(tmp_path / "a.pth", tmp_path / "a.safetensors", drop_unsupported=True)
    assert ("z", "safetensors has no complex32") in report.left_out


def test_dst_that_is_read_only(source, tmp_path):
    old = tmp_path / "old.safetensors"
    old.write_text("protected")
    old.chmod(0o444)
    if os.getuid() != 0:
        with pytest.raises(AccessDenied):
            tk.convert(source, old, overwrite=True)
        assert old.read_text() == "protected"
    for device in ("/dev/null", "/dev/full"):
        with pytest.raises(AlreadyExists):
            tk.convert(source, device, to="torch", overwrite=True)


@pytest.mark.parametrize("dst", ["out.safetensors", "out.pth", "parts/"])
@pytest.mark.parametrize("room", [1000, 60_000])
def test_the_file_size_limit_is_met(source, command, dst, room):
    done = command("convert", source, dst, cwd=source.parent, limits={"FSIZE": room})
    assert done.code == 2
    assert "nothing was left behind" in done.sentence()
    assert "File too large" in done.err
    assert listed(source.parent) == ["model.pth"]


@pytest.mark.parametrize("name", ["old.safetensors", "old/"])
def test_what_was_there_survives_a_write_that_fails(source, command, name):
    folder = source.parent
    tk.convert(source, folder / name if "." in name else f"{folder}/{name}")
    path = folder / name
    before = {p: p.read_bytes() for p in ([path] if path.is_file() else path.iterdir())}
    arguments = ["convert", "--overwrite", "--dtype", "float64", source, name]
    done = command(*arguments, cwd=folder, limits={"FSIZE": 100_000})
    assert done.code == 2
    assert done.sentence()
    assert {p: p.read_bytes() for p in before} == before
    assert listed(folder) == sorted(["model.pth", path.name])


def mountable():
    script = "mount -t tmpfs -o size=64k tmpfs /mnt"
    try:
        done = subprocess.run(["/usr/bin/unshare", "-m", "sh", "-c", script], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


# A file system of 64 KiB that only the child sees: real ENOSPC, where this machine allows it.
DISKS = ["limit", "tmpfs"] if mountable() else ["limit"]


@pytest.mark.parametrize("disk", DISKS)
def test_the_disk_fills_up(source, command, tmp_path, disk):
    if disk == "limit":
        done = command("convert", source, "out.pth", cwd=tmp_path, limits={"FSIZE": 70_000})
    else:
        mount = "mount -t tmpfs -o size=64k tmpfs /mnt; cd /mnt"
        script = f'{mount}; "$@"; c=$?; ls -A >{tmp_path}/ls; exit $c'
        prefix = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script, "sh"]
        done = command("convert", source, "out.pth", cwd=tmp_path, prefix=prefix)
        assert (tmp_path / "ls").read_text() == ""
    assert done.code == 2
    assert "Free some room" in done.sentence()
    assert not (tmp_path / "out.pth").exists()


class Meddler(Reporter):
    """Writes to the source while it is being read."""

    def __init__(self, act):
        self.act = act

    def advance(self, amount):
        self.act()


@pytest.mark.parametrize("dst", ["out.safetensors", "out.pth", "out/"])
@pytest.mark.parametrize("how", ["touched", "cut", "grown"])
def test_a_source_that_changes_while_it_is_read(source, tmp_path, dst, how):
    def act():
        if how == "cut":
            os.truncate(source, 5000)
        elif how == "grown":
            with source.open("ab") as file:
                file.write(b"more")
        os.utime(source)

    with pytest.raises(ChangedWhileRead) as caught:
        tk.convert(source, f"{tmp_path}/{dst}", reporter=Meddler(act))
    assert "model.pth" in str(caught.value)
    assert listed(tmp_path) == ["model.pth"]


def test_a_source_that_is_replaced_by_a_rename_is_still_read_whole(source, tmp_path):
    expected = torch.load(source)

    def act():
        (tmp_path / "new").write_bytes(b"something else")
        (tmp_path / "new").replace(source)

    report = tk.convert(source, tmp_path / "out.pth", reporter=Meddler(act), verify=True)
    assert report.verified == 8
    assert all(torch.equal(expected[k], v) for k, v in torch.load(tmp_path / "out.pth").items())


def test_no_error_of_the_store_is_without_remedy(source, tmp_path):
    for call in (
        lambda: tk.convert(source, tmp_path / "no" / "x.pth"),
        lambda: tk.convert(source, source),
        lambda: tk.inspect(tmp_path / "nothing"),
    ):
        with pytest.raises(TensorkeepError) as caught:
            call()
        assert caught.value.remedy
        assert json.dumps(str(caught.value))


def test_no_space_is_a_store_error():
    assert issubclass(NoSpace, TensorkeepError)
