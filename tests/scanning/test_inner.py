"""Files that a pickle has a loader open: each must have been opened here too, that very one."""

from __future__ import annotations

import pickle
import struct
import zipfile

import torch

import tensorkeep as tk
from tensorkeep.formats.contents import Contents, plain
from tensorkeep.pickles import run
from tensorkeep.scanning._inner import judge_unopened
from tensorkeep.scanning.rules import judge_program

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


def test_what_lies_in_the_bytes_decides(tmp_path):
    honest = pickle.dumps(torch.ones(2), 4)
    path = tmp_path / "value.pkl"
    path.write_bytes(honest)
    assert tk.scan(path).verdict == "safe"
    # The inner file's storage type becomes another name, of the same length.
    assert honest.count(b"ctorch\nFloatStorage\n") == 1
    path.write_bytes(honest.replace(b"ctorch\nFloatStorage\n", b"cshutil\nrmtree00000\n"))
    assert tk.scan(path).verdict == "dangerous"


def test_a_loader_of_something_else_than_bytes_is_dangerous():
    program = b"\x80\x02ctorch.storage\n_load_from_bytes\ncpkg\nthing\n)R\x85R."
    rules = {found.rule for found in judge_program(run(program), "x")}
    assert rules == {"pickle/dangerous-call", "pickle/unknown-call"}


def test_a_file_in_a_pickle_of_a_zip_is_judged_once(tmp_path):
    torch.save({}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "x.pth", "w") as made,
    ):
        for info in whole.infolist():
            pickled = info.filename.endswith("/data.pkl")
            made.writestr(info.filename, PICKLE if pickled else whole.read(info))
    (file,) = tk.scan(tmp_path / "x.pth").files
    inner = [found for found in file.findings if found.subject == "os.system"]
    assert (file.verdict, len(inner)) == ("dangerous", 1)
