"""What `scan` takes, and that its verdict rests on every byte that a loader could run."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import AccessDenied, NotACheckpoint, NotFound, StoreError
from tensorkeep.facts import Limits

CALL = b"cos\nsystem\nX\x04\x00\x00\x00true\x85R."


def torch_zip(path, data, members=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        for name, content in members:
            archive.writestr(f"archive/{name}", content)
    return path


def safetensors_file(path, header, tail):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + tail)
    return path


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.pth"
    torch.save({"w": torch.randn(50, 50), "b": torch.zeros(3)}, path)
    return path


def test_honest_files_are_safe(plain, digits):
    assert tk.scan(plain).verdict == "safe"
    assert tk.scan(plain, deep=True).verdict == "safe"
    assert tk.scan(digits).findings == []


def test_the_hostile_twin_is_dangerous(hostile_digits, digits):
    report = tk.scan(hostile_digits)
    assert report.verdict == "dangerous"
    (finding,) = report.findings
    assert finding.rule == "pickle/dangerous-call"
    assert "would call os.system(" in finding.what
    assert tk.scan(digits).verdict == "safe"


def test_bytes_files_objects_and_urls(hostile_digits):
    data = hostile_digits.read_bytes()
    with hostile_digits.open("rb") as file:
        for source in (data, bytearray(data), io.BytesIO(data), file, hostile_digits.as_uri()):
            assert tk.scan(source).verdict == "dangerous"


def test_bytes_not_read(plain):
    report = tk.scan(plain)
    assert report.bytes_not_read == 10_012
    assert report.to_dict()["bytes_not_read"] == report.bytes_not_read
    deep = tk.scan(plain, deep=True)
    assert deep.bytes_not_read == 0
    assert (report.depth, deep.depth) == ("default", "deep")


def test_a_directory_is_walked(plain, hostile_digits, tmp_path):
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "good.bin").write_bytes(plain.read_bytes())
    (folder / "a" / "b" / "bad.ckpt").write_bytes(hostile_digits.read_bytes())
    (folder / "model.dat").write_bytes(hostile_digits.read_bytes())
    (folder / "README.md").write_text("words")
    (folder / "config.json").write_text("{}")
    report = tk.scan(folder)
    assert (report.verdict, report.skipped) == ("dangerous", 2)
    found = {os.path.relpath(file.path, folder): file.verdict for file in report.files}
    assert found == {"a/good.bin": "safe", "a/b/bad.ckpt": "dangerous", "model.dat": "dangerous"}


def test_a_model_that_cannot_be_read_is_unknown_and_never_skipped(plain, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "cut.pth").write_bytes(plain.read_bytes()[:3000])
    (folder / "empty.safetensors").touch()
    (folder / "gone.bin").symlink_to("nowhere")
    (folder / "circle.bin").symlink_to("circle.bin")
    os.mkfifo(folder / "pipe.pt")
    (folder / "weights.gguf").write_bytes(b"GGUF" + bytes(100))
    (folder / "cut.zip").write_bytes(plain.read_bytes()[:3000])
    (folder / "notes.txt").touch()
    os.mkfifo(folder / "pipe")
    report = tk.scan(folder)
    assert {file.verdict for file in report.files} == {"unknown"}
    assert (len(report.files), report.skipped) == (7, 2)


def test_links_to_folders_are_counted_and_not_followed(plain, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.pth").symlink_to(plain)
    (folder / "circle").symlink_to(folder)
    report = tk.scan(folder)
    assert ([file.verdict for file in report.files], report.skipped) == (["safe"], 1)


def test_targets_that_are_not_there(tmp_path):
    for target, error in ((tmp_path / "no", NotFound), (tmp_path, NotACheckpoint)):
        with pytest.raises(error):
            tk.scan(target)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(NotACheckpoint, match="1 other file"):
        tk.scan(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError):
        tk.scan(tmp_path / "pipe")
    assert tk.scan(tmp_path / "notes.txt").verdict == "unknown"
    assert issubclass(AccessDenied, StoreError)


def test_an_index_file_stands_for_its_parts(plain, hostile_digits, tmp_path):
    folder = tmp_path / "parts"
    tk.convert(plain, f"{folder}/", to="torch", shard_size="5KB")
    index = folder / "pytorch_model.bin.index.json"
    (report,) = tk.scan(index).files
    assert (report.verdict, report.format) == ("safe", "sharded_torch_zip")
    part = sorted(folder.glob("*.bin"))[0]
    good = part.read_bytes()
    part.write_bytes(good[:-30])
    assert tk.scan(index).verdict == "unknown"
    part.unlink()
    assert tk.scan(index).verdict == "unknown"
    # A part that breaks off after its call: unknown, and worse.
    torch_zip(part, b"\x80\x02" + CALL[:-1] + b"\xff")
    assert tk.scan(index).verdict == "dangerous"
    part.write_bytes(hostile_digits.read_bytes())
    assert tk.scan(index).verdict != "safe"
    assert tk.scan(folder).verdict == "dangerous"


@pytest.mark.parametrize(
    "tail", [b"", b"\xff", b"0", b"R", b"cos", b"\x95\xff\xff\xff\xff\xff\xff\xff\xff", b"q"]
)
def test_what_ran_before_a_broken_opcode_is_reported(tmp_path, tail):
    path = torch_zip(tmp_path / "x.pth", b"\x80\x02" + CALL[:-1] + tail)
    report = tk.scan(path)
    rules = [finding.rule for finding in report.findings]
    assert report.verdict == "dangerous"
    assert "pickle/dangerous-call" in rules
    assert "read/damaged" in rules


def test_a_limit_does_not_hide_what_ran_before_it(tmp_path):
    data = b"\x80\x02" + CALL[:-1] + b"N" * 100_000 + b"."
    path = torch_zip(tmp_path / "x.pth", data)
    report = tk.scan(path, limits=Limits(max_stack=100))
    assert report.verdict == "dangerous"
    assert "read/limit" in [finding.rule for finding in report.findings]


def test_truncated_zips_are_unknown(plain):
    data = plain.read_bytes()
    for length in (4, 30, 100, len(data) // 2, len(data) - 30, len(data) - 1):
        assert tk.scan(data[:length]).verdict == "unknown"


def test_deep_reads_the_checksums_of_storages(plain):
    data = bytearray(plain.read_bytes())
    with tk.open(plain) as ckpt:
        data[ckpt["w"].record.storage.offset + 5] ^= 0x40
    assert tk.scan(bytes(data)).verdict == "safe"
    report = tk.scan(bytes(data), deep=True)
    assert report.verdict == "suspicious"
    assert [finding.rule for finding in report.findings] == ["container/bad-checksum"]


def test_deep_finds_a_pickle_in_a_storage(tmp_path):
    hidden = b"\x80\x02" + CALL
    tensor = torch.frombuffer(bytearray(hidden.ljust(64, b"\0")), dtype=torch.uint8)
    torch.save({"w": tensor}, tmp_path / "x.pth")
    assert tk.scan(tmp_path / "x.pth").verdict == "safe"
    report = tk.scan(tmp_path / "x.pth", deep=True)
    assert report.verdict != "safe"
    assert "container/hidden-pickle" in [finding.rule for finding in report.findings]


def test_oddities_of_safetensors_are_suspicious(tmp_path):
    def entry(begin, end):
        return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}

    twice = b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 4)).encode(),) * 2)
    cases = {
        "hole": ({"a": entry(0, 2), "b": entry(3, 4)}, 4),
        "overlap": ({"a": entry(0, 3), "b": entry(1, 4)}, 4),
        "trailing": ({"a": entry(0, 4)}, 9),
        "twice": (twice, 4),
    }
    for name, (header, size) in cases.items():
        path = safetensors_file(tmp_path / f"{name}.safetensors", header, bytes(size))
        report = tk.scan(path)
        assert report.verdict == "suspicious", name
        assert report.findings[0].rule in ("container/hidden-bytes", "tensor/odd", "container/odd",
                                           "container/ambiguous")  # fmt: skip
    good = safetensors_file(tmp_path / "good.safetensors", {"a": entry(0, 4)}, bytes(4))
    assert tk.scan(good).verdict == "safe"


def test_a_tensor_beyond_its_storage_is_dangerous(tmp_path):
    torch.save({"w": torch.zeros(4)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.endswith("data.pkl"))
    members[name] = members[name].replace(b"K\x00K\x04\x85", b"K\x09K\x04\x85")
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    report = tk.scan(tmp_path / "y.pth")
    assert report.verdict == "dangerous"
    assert "tensor/out-of-bounds" in [finding.rule for finding in report.findings]


def test_the_verdict_does_not_rest_on_what_is_installed(hostile_digits, digits, tmp_path, root):
    class Unheard:
        pass

    Unheard.__module__, Unheard.__qualname__ = "no_such_package.models", "Net"
    data = b"\x80\x02cno_such_package.models\nNet\n)\x81."
    odd = torch_zip(tmp_path / "odd.pth", data)
    targets = [str(hostile_digits), str(digits), str(odd)]
    program = (
        "import sys, json, tensorkeep as tk\n"
        "print(json.dumps([tk.scan(t).to_dict() for t in sys.argv[1:]]))\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    # Without site-packages there is neither torch nor numpy to be asked.
    bare = subprocess.run(
        [sys.executable, "-S", "-c", program, *targets],
        env={"PYTHONPATH": str(root / "src")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(bare.stdout) == [tk.scan(target).to_dict() for target in targets]
    assert [tk.scan(target).verdict for target in targets] == ["dangerous", "safe", "suspicious"]


def test_nothing_is_run(tmp_path):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path = torch_zip(tmp_path / "x.pth", pickle.dumps({"w": Payload()}, 2))
    assert tk.scan(path, deep=True).verdict == "dangerous"
    tk.inspect(path)
    tk.verify(path)
    assert not marker.exists()
