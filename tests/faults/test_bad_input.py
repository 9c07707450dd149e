"""What is no checkpoint, or only part of one: a sentence, an exit code, bounded memory."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest

import tensorkeep as tk
from tensorkeep.errors import (
    AccessDenied,
    Damaged,
    NotACheckpoint,
    NotFound,
    ReadError,
    TensorkeepError,
    UnknownScheme,
)

VERBS = ("inspect", "scan", "verify")
MEMORY = 96 << 20


def safetensors_file(path, header, tail=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tail)
    return path


def torch_file(path, value, members=(), raw=False):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", value if raw else pickle.dumps(value, 2))
        archive.writestr("archive/version", "3\n")
        for name, data in members:
            archive.writestr(f"archive/{name}", data)
    return path


def tensor_pickle(shape, stride, location=b"X\x03\0\0\0cpu"):
    """`{"w": tensor}` over one float32, as torch writes it."""

    def number(value):
        return b"J" + struct.pack("<i", value)

    sizes = b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, stride)) + b"t"
    return (
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage"
        b"ctorch\nFloatStorage\nX\x01\0\0\x000"
        + location
        + b"K\x01tQK\0"
        + sizes
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def written(folder):
    """Every file below, to see that nothing was left behind."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def outcome(function, *arguments, **options):
    """The result, or the error of ours; any other exception is the test's failure."""
    try:
        return function(*arguments, **options)
    except TensorkeepError as error:
        assert "\n" not in str(error)
        return error


def everything(source, folder):
    """Each verb on `source`; nothing but results and errors of ours may come back."""
    return [
        outcome(tk.inspect, source),
        outcome(tk.scan, source),
        outcome(tk.scan, source, deep=True),
        outcome(tk.verify, source),
        outcome(tk.convert, source, folder / "made.safetensors", overwrite=True),
        outcome(tk.convert, source, folder / "made.pth", overwrite=True, verify=True),
    ]


@pytest.mark.parametrize("name", ["good.pth", "good.safetensors"])
def test_truncated_at_every_byte(good, tmp_path, name):
    whole = (good / name).read_bytes()
    for length in range(0, len(whole), 7):
        data = whole[:length]
        with pytest.raises(ReadError) as caught:
            tk.inspect(data)
        assert str(caught.value)
        assert tk.scan(data).verdict == "unknown"
        with pytest.raises(ReadError):
            tk.convert(data, tmp_path / "out.safetensors")
        report = outcome(tk.verify, data)
        assert isinstance(report, ReadError) or not report.ok
    assert written(tmp_path) == []


@pytest.mark.parametrize("verb", [*VERBS, "convert"])
@pytest.mark.parametrize("name", ["good.pth", "good.safetensors"])
def test_the_command_on_a_truncated_file(good, tmp_path, command, name, verb):
    whole = (good / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(whole[: len(whole) // 2])
    arguments = [verb, cut, "out.safetensors"] if verb == "convert" else [verb, cut]
    done = command(*arguments, cwd=tmp_path)
    if verb == "verify":
        assert (done.code, done.err.count("note")) == (1, done.err.count("\n"))
        assert "damaged" in done.out
    elif verb == "scan":
        assert done.code == 2
        assert done.out.startswith("unknown")
    else:
        assert done.code == 2
        assert name in done.sentence()
        assert "again" in done.err
    assert done.peak < MEMORY
    assert written(tmp_path) == [name]


@pytest.mark.parametrize("verb", [*VERBS, "convert"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.mkdir(), "an empty one"),
        (lambda path: None, "No such file"),
        (lambda path: path.write_text("<!DOCTYPE html>"), "a web page"),
        (lambda path: path.write_text("hello, world"), "begins with"),
        (lambda path: os.mkfifo(path), "a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
    ids=["empty", "folder", "missing", "page", "text", "pipe", "device", "circle"],
)
def test_what_is_no_checkpoint(tmp_path, command, verb, make, words):
    make(tmp_path / "x.pth")
    arguments = ["x.pth", "out.safetensors"] if verb == "convert" else ["x.pth"]
    done = command(verb, *arguments, cwd=tmp_path, timeout=20)
    assert done.code == 2
    if verb == "scan" and done.out:
        assert done.out.startswith("unknown")
        assert words in done.out
    else:
        assert words in done.sentence()
        assert "x.pth" in done.err
    assert "out.safetensors" not in written(tmp_path)


def test_errors_say_five_things(tmp_path):
    (tmp_path / "empty.pth").touch()
    for source, kind in ((tmp_path / "empty.pth", NotACheckpoint), (tmp_path / "no", NotFound)):
        with pytest.raises(kind) as caught:
            tk.inspect(source)
        assert caught.value.subject
        assert caught.value.expected
        assert caught.value.got
        assert caught.value.remedy


AS_NOBODY = """
import contextlib, importlib.metadata, io, os, sys
from tensorkeep.cli import main
importlib.metadata.metadata("tensorkeep")  # what says where a rule is documented reads it
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main([sys.argv[1], sys.argv[2]])  # what is imported late could not be read afterwards
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
main([sys.argv[1], *sys.argv[3:]])
"""


@pytest.mark.parametrize("verb", VERBS)
def test_no_permission(good, command, verb):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        closed = folder / "closed.pth"
        closed.write_bytes((good / "good.pth").read_bytes())
        closed.chmod(0)
        done = command(verb, good / "good.pth", closed, cwd="/", python=AS_NOBODY)
        assert done.code == 2
        assert "Permission denied" in done.sentence()
        assert "Check the permissions" in done.err
        locked = folder / "locked"
        locked.mkdir()
        (locked / "model.pth").write_bytes(closed.read_bytes())
        locked.chmod(0)
        done = command(verb, good / "good.pth", locked, cwd="/", python=AS_NOBODY)
        assert done.code == 2
        assert "Permission denied" in done.sentence()
        locked.chmod(0o755)


def test_what_a_scan_may_not_read_is_never_safe(good, command):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "good.pth").write_bytes((good / "good.pth").read_bytes())
        (folder / "good.pth").chmod(0o644)
        for inner in ("sub", "file.bin"):
            hidden = folder / inner
            hidden.mkdir() if inner == "sub" else hidden.write_bytes(b"\x80\x02.")
            hidden.chmod(0)
            arguments = ["scan", good / "good.pth", folder]
            done = command(*arguments, cwd="/", python=AS_NOBODY)
            assert done.code == 2, inner
            assert "1 unknown" in done.out
            assert "1 safe" in done.out
            hidden.chmod(0o755)
            hidden.rmdir() if inner == "sub" else hidden.unlink()


def test_declared_sizes_of_terabytes(tmp_path, command):
    terabytes = 2 << 40
    spec = {"a": {"dtype": "U8", "shape": [terabytes], "data_offsets": [0, terabytes]}}
    short = safetensors_file(tmp_path / "short.safetensors", spec, b"\0" * 64)
    sparse = safetensors_file(tmp_path / "sparse.safetensors", spec)
    os.truncate(sparse, sparse.stat().st_size + terabytes)
    header = tmp_path / "header.safetensors"
    header.write_bytes(struct.pack("<Q", 90_000_000) + b'{"')
    pickled = tensor_pickle([1 << 20, 1 << 19], [0, 0])
    expanded = torch_file(tmp_path / "expanded.pth", pickled, [("data/0", b"\0" * 4)], raw=True)
    for path, code, words in (
        (short, 2, "expected 2199023255552 bytes"),
        (header, 2, "a header of 90000000 bytes"),
        (sparse, 0, "2.20 TB"),
        (expanded, 0, "549,755,813,888 elements"),
    ):
        done = command("inspect", path, cwd=tmp_path, timeout=20, limits={"AS": 1 << 30})
        assert done.code == code, done.err
        assert words in (done.sentence() if code else done.out)
        assert done.peak < MEMORY
    # As much as that fits on no disk; it is refused before anything is written.
    limits = {"AS": 1 << 30, "FSIZE": 1 << 30}
    for path, words in ((sparse, "nothing was left behind"), (expanded, "100 times its 498 bytes")):
        done = command("convert", path, "out.pth", cwd=tmp_path, timeout=20, limits=limits)
        assert done.code == 2
        assert words in done.sentence()
        assert done.peak < MEMORY
        assert not any("out" in name for name in written(tmp_path))


@pytest.mark.parametrize("dimensions", [65, 100_000])
def test_a_size_of_many_dimensions(tmp_path, dimensions):
    shape = [9] * dimensions
    spec = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
    flat = safetensors_file(tmp_path / "flat.safetensors", spec, b"\0" * 4)
    assert all(isinstance(result, Damaged) for result in everything(flat, tmp_path)[:1])
    pickled = tensor_pickle(shape, [0] * dimensions)
    zipped = torch_file(tmp_path / "wide.pth", pickled, [("data/0", b"\0" * 4)], raw=True)
    inspected, *rest = everything(zipped, tmp_path)
    assert inspected.unread == [("w", "tensor whose size is no tuple of up to 64 integers")]
    assert all(isinstance(result, TensorkeepError) for result in rest[-2:])


@pytest.mark.parametrize(
    ("shape", "stride"), [([1, 1], [1]), ([1], [1, 1]), ([], [1]), ([-1], [1]), ([1], [-1])]
)
def test_a_shape_that_is_no_place(tmp_path, shape, stride):
    pickled = tensor_pickle(shape, stride)
    path = torch_file(tmp_path / "x.pth", pickled, [("data/0", b"\0" * 4)], raw=True)
    inspected, scanned, _, verified, *converted = everything(path, tmp_path)
    assert [name for name, _ in inspected.unread] == ["w"]
    assert scanned.verdict != "safe"
    assert not verified.ok
    assert all(isinstance(error, TensorkeepError) for error in converted)


def test_values_that_python_cannot_print(tmp_path):
    huge = 1 << 40_000
    deep = b"]" * 50_000 + b"a" * 49_999
    files = [
        torch_file(tmp_path / "value.pth", {"epoch": huge, "loss": float("nan")}),
        torch_file(tmp_path / "key.pth", {huge: 1}),
        torch_file(tmp_path / "deep.pth", b"\x80\x02" + deep + b".", raw=True),
        torch_file(
            tmp_path / "device.pth",
            tensor_pickle([1], [1], deep),
            [("data/0", b"\0" * 4)],
            raw=True,
        ),
    ]
    for path in files:
        for result in everything(path, tmp_path):
            if isinstance(result, tk.TensorkeepError):
                continue
            json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("depth", [300, 900, 960, 980, 1000, 50_000])
@pytest.mark.parametrize(
    "template",
    [
        b'{"a":%s}',
        b'{"a":{"dtype":%s,"shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":%s,"data_offsets":[0,4]}}',
        b'{"__metadata__":{"x":%s}}',
    ],
)
def test_nested_headers(tmp_path, depth, template):
    nested = template % (b"[" * depth + b"]" * depth)
    path = safetensors_file(tmp_path / "x.safetensors", nested, b"\0" * 4)
    for result in everything(path, tmp_path):
        assert isinstance(result, ReadError) or result.to_dict()["schema"] == 1
    assert isinstance(outcome(tk.inspect, path), ReadError)


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "1",
        "{",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": ""}}',
        '{"weight_map": {"a": ".."}}',
        '{"weight_map": {"a": "../secret.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "missing.safetensors"}}',
        '{"weight_map": {"missing": "model-00001-of-00002.safetensors"}}',
        '{"weight_map": {"\\ud800": "model-00001-of-00002.safetensors"}}',
        '{"weight_map": {"a": "\\ud800"}}',
        '{"weight_map": {"a": "\\u0000"}}',
        '{"weight_map": {"a": "' + "x" * 5000 + '"}}',
        '{"weight_map": ' + "[" * 100_000,
    ],
)
def test_bad_indexes(good, tmp_path, index):
    for part in (good / "parts").glob("*.safetensors"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    for source in (path, tmp_path):
        results = everything(source, tmp_path.parent)
        assert isinstance(results[0], ReadError)
        # A damaged checkpoint: the report says so, or the error does.
        assert isinstance(results[3], ReadError) or not results[3].ok
        assert isinstance(results[4], ReadError)
    assert tk.scan(path).verdict == "unknown"


@pytest.mark.parametrize(
    "metadata", ['{"x": "\\ud800"}', '{"x": [[[1]]]}', '{"x": 1e999}', '{"\\ud800": 1}', "[]"]
)
def test_odd_index_metadata_is_carried_or_dropped(good, tmp_path, metadata):
    source, made = tmp_path / "source", tmp_path / "made.safetensors"
    source.mkdir()
    for part in (good / "parts").iterdir():
        (source / part.name).write_bytes(part.read_bytes())
    index = source / "model.safetensors.index.json"
    text = json.loads(index.read_text())
    index.write_text(f'{{"metadata": {metadata}, "weight_map": {json.dumps(text["weight_map"])}}}')
    assert tk.convert(source, made, verify=True).verified == 6


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "http", "https", "hf", "ftp"])
def test_schemes_of_later_versions_are_refused_in_words(good, tmp_path, command, scheme):
    url = f"{scheme}://bucket/model.pth"
    for function in (tk.inspect, tk.scan, tk.verify, tk.open):
        with pytest.raises(UnknownScheme) as caught:
            function(url)
        assert f"{scheme}://" in str(caught.value)
    with pytest.raises(UnknownScheme):
        tk.convert(good / "good.pth", url)
    if scheme == "s3":
        done = command("inspect", url, cwd=tmp_path)
        assert done.code == 2
        assert "copy the file here first" in done.sentence()


def test_access_denied_is_a_store_error():
    assert issubclass(AccessDenied, tk.TensorkeepError)
