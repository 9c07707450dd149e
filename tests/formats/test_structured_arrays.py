"""Arrays of structs, as joblib writes the trees of a forest: skipped over, and never objects."""

from __future__ import annotations

import joblib
import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep.formats._arrays import Element, element_of_call
from tensorkeep.pickles import run

NODES = np.dtype([("left", "i8"), ("threshold", "f8"), ("missing", "u1")])


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("compress", [0, 3])
def test_what_follows_an_array_of_structs_is_read(align, compress, tmp_path):
    dtype = np.dtype(NODES.descr, align=align)
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


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (dtype_of(FLOAT), Element("V8", 8, False)),
        (dtype_of(FLOAT, flags=b"K\x3f"), None),
        (dtype_of(OBJECT), None),
        (dtype_of(FLOAT, OBJECT), None),
        (dtype_of(NESTED), None),
        (dtype_of(FLOAT, size=b"K\x09"), None),
        (dtype_of(FLOAT, code=b"f8"), None),
        (dtype_of(b"N"), None),
    ],
)
def test_structs(program, expected):
    assert element_of_call(run(b"\x80\x04" + program + b".").value) == expected
