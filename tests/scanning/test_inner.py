"""Files that a pickle has a loader open: each must have been opened here too, that very one."""

from __future__ import annotations

import struct

import tensorkeep as tk
from tensorkeep.formats.contents import Contents, plain
from tensorkeep.pickles import run
from tensorkeep.scanning._inner import judge_unopened

EVIL = b"\x80\x02cos\nsystem\nX\x0f\x00\x00\x00echo tensorkeep\x85R."
LOADS = b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(EVIL)) + EVIL + b"\x85R"
PICKLE = b"\x80\x03" + LOADS + b"."


def contents(*nested):
    inside = Contents("torch_zip", "zip", {}, plain, {})
    program = run(PICKLE)
    made = Contents("dcp", "folder", {}, plain, {}, programs=[("data.pkl", program)])
    made.nested += [(name, inside) for name in nested]
    return made


def test_bytes_that_nobody_opened_are_dangerous():
    assert [found.rule for found in judge_unopened(contents())] == ["pickle/dangerous-call"]


def test_another_file_that_was_opened_does_not_stand_for_it():
    other = contents("item 0", "data.pkl, bytes of the call at byte 1")
    assert [found.rule for found in judge_unopened(other)] == ["pickle/dangerous-call"]


def test_the_file_itself_does():
    offset = PICKLE.rindex(b"R.")
    assert judge_unopened(contents(f"data.pkl, bytes of the call at byte {offset}")) == []


def test_a_raw_pickle_and_what_is_in_its_bytes_are_judged():
    assert tk.scan(PICKLE).verdict == "dangerous"
