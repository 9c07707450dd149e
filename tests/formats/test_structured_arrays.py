"""Arrays of structs, as joblib writes the trees of a forest: skipped over, and never objects."""

from __future__ import annotations

import time

import joblib
import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep.formats._arrays import Element, element_of_call
from tensorkeep.pickles import Call, Effect, Global, run

NODES = np.dtype([("left", "i8"), ("threshold", "f8"), ("missing", "u1")])
NESTED_NODES = np.dtype([("tree", NODES, (2,)), ("scale", "f4", (2, 3)), ("root", NODES)])


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("compress", [0, 3])
@pytest.mark.parametrize("fields", [NODES, NESTED_NODES])
def test_what_follows_an_array_of_structs_is_read(fields, align, compress, tmp_path):
    dtype = np.dtype(fields.descr, align=align)
    path = tmp_path / "forest.joblib"
    joblib.dump({"nodes": np.zeros(3, dtype), "values": np.arange(4.0)}, path, compress=compress)
    assert tk.scan(path).verdict == "safe"
    with tk.open(path) as ckpt:
        assert ckpt["values"].read() == np.arange(4.0).tobytes()


def dtype_of(*fields, flags=b"K\x10", size=b"K\x08", code=b"V8"):
    parts = b"".join(b"\x8c\x01" + bytes([97 + n]) + each + b"s" for n, each in enumerate(fields))
    named = b"cnumpy\ndtype\n\x8c" + bytes([len(code)]) + code + b"\x89\x88\x87R"
    return named + b"(K\x03\x8c\x01|NN}" + parts + size + b"K\x01" + flags + b"tb"


FLOAT = b"cnumpy\ndtype\n\x8c\x02f8\x89\x88\x87RK\x00\x86"
OBJECT = b"cnumpy\ndtype\n\x8c\x01O\x89\x88\x87RK\x00\x86"
NESTED = dtype_of(FLOAT) + b"K\x00\x86"


def nested(depth):
    """A struct in a struct, that often."""
    field = FLOAT
    for _ in range(depth):
        field = dtype_of(field) + b"K\x00\x86"
    return field


def many_of(dtype, count, size=None, flags=0):
    """A field of `count` elements, each of eight bytes."""
    length = 8 * count if size is None else size
    code = f"V{length}".encode()
    named = b"cnumpy\ndtype\n\x8c" + bytes([len(code)]) + code + b"\x89\x88\x87R"
    state = b"(K\x03\x8c\x01|" + dtype + b"K" + bytes([count]) + b"\x85\x86NNK"
    return named + state + bytes([length]) + b"K\x01K" + bytes([flags]) + b"tbK\x00\x86"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (dtype_of(FLOAT), Element("V8", 8, False)),
        (dtype_of(FLOAT, flags=b"K\x3f"), None),
        (dtype_of(OBJECT), None),
        (dtype_of(FLOAT, OBJECT), None),
        (dtype_of(NESTED), Element("V8", 8, False)),
        (dtype_of(nested(3)), Element("V8", 8, False)),
        (dtype_of(nested(4)), None),
        (dtype_of(many_of(FLOAT[:-3], 2), code=b"V16", size=b"K\x10"), Element("V16", 16, False)),
        (dtype_of(many_of(FLOAT[:-3], 2, size=9), code=b"V16", size=b"K\x10"), None),
        (dtype_of(many_of(FLOAT[:-3], 2, flags=63), code=b"V16", size=b"K\x10"), None),
        (dtype_of(many_of(OBJECT[:-3], 2), code=b"V16", size=b"K\x10"), None),
        (many_of(FLOAT[:-3], 2)[:-3], None),
        (dtype_of(FLOAT, size=b"K\x09"), None),
        (dtype_of(FLOAT, code=b"f8"), None),
        (dtype_of(b"N"), None),
    ],
)
def test_structs(program, expected):
    assert element_of_call(run(b"\x80\x04" + program + b".").value) == expected


def shared(levels, width):
    """A struct of structs, each of which has all those of the next level as fields."""
    call = run(b"\x80\x04" + FLOAT[:-3] + b".").value
    level = [call]
    for _ in range(levels):
        fields = {str(n): (each, 0) for n, each in enumerate(level)}
        state = (3, "|", None, tuple(fields), fields, 8, 1, 16)
        level = [structure(state) for _ in range(width)]
    return level[0]


def structure(state):
    call = Call("REDUCE", Global("numpy", "dtype", 0), ("V8", False, True), None, 0)
    call.effects = [Effect("BUILD", call, (state,), 0)]
    return call


def test_structs_that_share_their_fields_cost_no_more_than_their_bytes():
    started = time.process_time()
    assert element_of_call(shared(4, 300)) == Element("V8", 8, False)
    assert time.process_time() - started < 5
