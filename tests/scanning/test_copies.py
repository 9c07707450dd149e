"""What is spelled once and copied again and again."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

import tensorkeep as tk
from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program

LENGTH = 100_000
BYTES = b"B" + struct.pack("<I", LENGTH) + bytes(LENGTH) + b"q\x000"
TEXT = b"X" + struct.pack("<I", LENGTH) + b"a" * LENGTH + b"q\x000"
NO_SIZE = b"J\xff\xff\xff\xff" * 2
U1 = b"cnumpy\ndtype\n\x8c\x02u1\x89\x88\x87R(K\x03\x8c\x01|NNN" + NO_SIZE + b"K\0tbq\x040"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87"
STATE = b"(K\x01J" + struct.pack("<i", LENGTH) + b"\x85h\x04\x89h\x00tb"
COPIES = {
    "bytearray": (BYTES, b"cbuiltins\nbytearray\nh\x00\x85R"),
    "encode": (TEXT, b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R"),
    "array": (TEXT, b"carray\narray\n\x8c\x01uh\x00\x86R"),
    "numpy": (BYTES + U1, ARRAY + b"R" + STATE),
}


def rules(program):
    return {found.rule for found in judge_program(run(b"\x80\x04" + program), "data.pkl")}


@pytest.mark.parametrize(("spelled", "copy"), COPIES.values(), ids=COPIES)
def test_copies_without_end_are_an_attack(spelled, copy):
    assert rules(spelled + b"](" + copy * 20 + b"e.") == set()
    assert rules(spelled + b"](" + copy * 5_000 + b"e.") == {"pickle/amplification"}


def test_a_moved_tensor_is_as_large_as_its_shape():
    moved = torch.ones(1).expand(1 << 40)
    file = io.BytesIO()
    torch.save(moved, file)
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read("archive/data.pkl")
    view = pickled[2:-1]
    rebuild = b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n("
    program = b"\x80\x02" + rebuild + view + b"ctorch\nfloat64\nX\x03\0\0\0cpu\x89tR."
    found = {each.rule for each in judge_program(run(program), "data.pkl")}
    assert found == {"pickle/amplification"}
    assert judge_program(run(pickled), "data.pkl") == []


@pytest.mark.parametrize("protocol", range(6))
def test_many_honest_values_are_no_attack(protocol):
    values = [np.zeros(100), bytes(range(256)), bytearray(100), np.float32(1)] * 500
    values = [value.copy() if isinstance(value, np.ndarray) else value for value in values]
    assert judge_program(run(pickle.dumps(values, protocol)), "x") == []


@pytest.mark.parametrize(("spelled", "copy"), COPIES.values(), ids=COPIES)
def test_reading_copies_keeps_little(spelled, copy):
    data = b"\x80\x04" + spelled + b"](" + copy * 5_000 + b"e."
    tracemalloc.start()
    try:
        assert tk.scan(data).verdict == "dangerous"
        assert tracemalloc.get_traced_memory()[1] < 150 << 20  # of 500 MB that they are
    finally:
        tracemalloc.stop()
