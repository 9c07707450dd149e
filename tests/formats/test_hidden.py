"""Pickles behind the end of what a loader reads, with bytes that are none before them."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.errors import LimitExceeded
from tensorkeep.facts import Limits
from tensorkeep.formats._hidden import behind
from tensorkeep.pickles import Import
from tensorkeep.stores.memory import MemoryBlob

JUNK = bytes(range(255, 127, -1)) * 2


class Calls:
    """Were it loaded: the process's number."""

    def __reduce__(self):
        return os.getpid, ()


EVIL = pickle.dumps(Calls(), 2)


def imported(found):
    events = [event for _, program in found.programs for event in program.trace]
    return {event.target.name for event in events if isinstance(event, Import)}


@given(st.binary(max_size=300), st.binary(max_size=300), st.sampled_from(range(6)))
def test_no_junk_before_or_behind_hides_a_pickle(before, after, protocol):
    data = before + pickle.dumps([Calls()], protocol) + after
    found = behind(MemoryBlob(data), 0, Limits())
    assert "getpid" in imported(found) or found.unreadable


@given(st.binary(max_size=500))
def test_any_bytes_give_a_result(data):
    found = behind(MemoryBlob(data), 0, Limits())
    assert len(found.programs) == len(found.anomalies)


@pytest.mark.parametrize("protocol", range(6))
def test_place_and_offsets(protocol):
    data = JUNK + pickle.dumps(Calls(), protocol)
    found = behind(MemoryBlob(data), 0, Limits(), "archive/data.pkl")
    (place, program), *others = found.programs
    assert (place, others) == (f"archive/data.pkl, pickle at byte {len(JUNK)}", [])
    assert (program.start, program.end) == (0, len(data) - len(JUNK))
    assert found.anomalies[0].offset == len(JUNK)


def test_what_is_judged_already_is_not_found_again():
    from tensorkeep.pickles import run

    known = run(EVIL)
    assert behind(MemoryBlob(EVIL), 0, Limits(), known=known).programs == []


@pytest.mark.parametrize(
    "decoys",
    [b"\x80\x02" * 20_000, b"\x80\x02X\xff\xff\xff\x0f" * 30_000, b"ca\nb\n)R0" * 20_000],
    ids=["protocols", "cut", "calls"],
)
def test_decoys_without_end_are_said_to_be_more_than_is_tried(decoys):
    found = behind(MemoryBlob(decoys + EVIL), 0, Limits())
    assert "getpid" in imported(found) or isinstance(found.unreadable[0][1], LimitExceeded)


def test_a_file_behind_megabytes_of_nothing(tmp_path):
    torch.save({"w": torch.ones(4)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with (tmp_path / "x.pth").open("ab") as file:
        file.write(bytes(6 << 20) + EVIL)
    report = tk.scan(tmp_path / "x.pth")
    assert report.verdict == "dangerous"
    with tk.open(tmp_path / "x.pth") as ckpt:
        assert ckpt["w"].numpy().tolist() == [1, 1, 1, 1]


def test_zeros_and_a_second_file_of_torch_are_hidden_bytes_and_no_more(tmp_path):
    made = io.BytesIO()
    torch.save({"w": torch.ones(4)}, made, _use_new_zipfile_serialization=False)
    for more in (bytes(5000), made.getvalue()):
        (tmp_path / "x.pth").write_bytes(made.getvalue() + more)
        findings = tk.scan(tmp_path / "x.pth").findings
        assert {found.rule.partition("/")[2] for found in findings} <= {
            "hidden-bytes",
            "hidden-pickle",
        }
        assert {found.severity for found in findings} == {"suspicious"}


def test_behind_junk_in_the_pickle_of_a_zip(tmp_path):
    torch.save({"w": torch.ones(4)}, tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as old,
        zipfile.ZipFile(tmp_path / "y.pth", "w") as new,
    ):
        for name in old.namelist():
            more = JUNK + EVIL if name.endswith("data.pkl") else b""
            new.writestr(name, old.read(name) + more)
    (found,) = [f for f in tk.scan(tmp_path / "y.pth").findings if f.severity == "dangerous"]
    assert "data.pkl, pickle at byte" in found.where
