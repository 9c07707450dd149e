"""`verify`: the promises that a file makes about itself."""

from __future__ import annotations

import json
import struct
import zipfile

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import ChangedWhileRead, NotACheckpoint, Unsupported
from tensorkeep.progress import Reporter


def flipped(path, name, inside=10):
    data = bytearray(path.read_bytes())
    with tk.open(path) as ckpt:
        data[ckpt[name].record.storage.offset + inside] ^= 1
    return bytes(data)


def test_an_honest_file_is_whole(digits):
    report = tk.verify(digits)
    assert (report.ok, report.checked, report.tensors) == (True, "digests", 46)
    assert (report.damaged, report.notes) == ([], [])


def test_one_bit_is_named_by_its_tensor(digits):
    report = tk.verify(flipped(digits, "optimizer.state.0.exp_avg"))
    (damage,) = report.damaged
    assert not report.ok
    assert damage.tensor == "optimizer.state.0.exp_avg"
    assert damage.file.endswith("/data/" + damage.file.rpartition("/")[2])
    assert damage.expected != damage.got
    assert damage.expected.startswith("crc32:")


@pytest.mark.parametrize("member", ["data.pkl", "version", "byteorder"])
def test_every_member_is_checked(tmp_path, member):
    torch.save({"w": torch.ones(4)}, tmp_path / "x.pth")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        header = archive.getinfo(f"x/{member}").header_offset
    lengths = struct.unpack_from("<HH", data, header + 26)
    data[header + 30 + sum(lengths) + (3 if member == "data.pkl" else 0)] ^= 0x10
    try:
        assert not tk.verify(bytes(data)).ok
    except tk.TensorkeepError as error:
        assert "x/" in str(error)


def test_without_checksums_structure_only_and_it_says_so(tmp_path, digits):
    tk.convert(digits, tmp_path / "a.safetensors")
    report = tk.verify(tmp_path / "a.safetensors")
    assert (report.ok, report.checked) == (True, "structure")
    assert "no checksums" in report.notes[0]
    with _without_crc():
        torch.save({"w": torch.ones(100)}, tmp_path / "b.pth")
    report = tk.verify(tmp_path / "b.pth")
    assert (report.ok, report.checked) == (True, "structure")


class _without_crc:
    def __enter__(self):
        torch.serialization.set_crc32_options(False)

    def __exit__(self, *error):
        torch.serialization.set_crc32_options(True)


def test_damage_that_stops_the_reader_is_a_report(digits, tmp_path):
    data = digits.read_bytes()
    for length in (100, 5000, len(data) - 1):
        report = tk.verify(data[:length])
        assert not report.ok
        assert report.damaged[0].got
    header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    report = tk.verify(struct.pack("<Q", len(header)) + header + bytes(20))
    assert not report.ok
    assert "36 bytes" in report.damaged[0].expected


def test_oddities_are_damage(tmp_path):
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    report = tk.verify(struct.pack("<Q", len(header)) + header + b"\0more")
    assert [damage.got for damage in report.damaged] == ["4 bytes follow the last tensor"]


def test_parts_are_named(digits, tmp_path):
    folder = tmp_path / "parts"
    tk.convert(digits, f"{folder}/", to="torch", section="all", shard_size="20KB")
    assert tk.verify(folder).ok
    part = sorted(folder.glob("*-00002-*.bin"))[0]
    with tk.open(part) as ckpt:
        name = max(ckpt.tensors.values(), key=lambda ref: ref.nbytes).name
    part.write_bytes(flipped(part, name))
    (damage,) = tk.verify(folder).damaged
    assert damage.file.startswith(part.name)
    assert damage.tensor == name
    part.unlink()
    report = tk.verify(folder)
    assert not report.ok
    assert part.name in report.damaged[0].got


def test_what_cannot_be_checked_raises(tmp_path):
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(NotACheckpoint):
        tk.verify(tmp_path / "page.pth")
    with pytest.raises(Unsupported):
        tk.verify(b"GGUF" + bytes(100))


def test_json(digits):
    report = tk.verify(flipped(digits, "model.0.weight")).to_dict()
    assert {"schema", "ok", "checked", "damaged"} <= report.keys()
    assert set(report["damaged"][0]) == {"file", "tensor", "expected", "got"}
    json.dumps(report, allow_nan=False)


def test_progress_covers_the_file_and_ends(digits):
    class Counter(Reporter):
        total = done = finished = 0

        def start(self, what, total):
            self.total = total

        def advance(self, amount):
            self.done += amount

        def finish(self):
            self.finished += 1

    counter = Counter()
    tk.verify(digits, reporter=counter)
    assert counter.total == digits.stat().st_size
    assert 0.8 * counter.total < counter.done
    assert counter.finished == 1


def test_a_file_that_changes_meanwhile(digits, tmp_path):
    copy = tmp_path / "copy.pth"
    copy.write_bytes(digits.read_bytes())

    class Meddler(Reporter):
        def advance(self, amount):
            copy.touch()

    with pytest.raises(ChangedWhileRead):
        tk.verify(copy, reporter=Meddler())
