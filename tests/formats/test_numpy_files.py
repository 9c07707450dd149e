"""numpy's .npy and .npz: arrays as numpy loads them, headers read by a grammar, objects judged."""

import io

import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep.errors import Damaged, ReadError, Unsupported
from tensorkeep.formats import _npy_header

ARRAYS = {
    "c": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
    "big": np.arange(5, dtype=">f4"),
    "complex": np.arange(3, dtype=">c16") * 1j,
    "bool": np.array([[True], [False]]),
    "scalar": np.array(7, dtype="u2"),
    "none": np.zeros((3, 0, 2), dtype="f2"),
}


class Runs:
    def __reduce__(self):
        import os

        return os.system, ("echo tensorkeep",)


def saved(*arrays, version=None):
    file = io.BytesIO()
    for array in arrays:
        np.lib.format.write_array(file, array, version)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_as_numpy_loads_them(name, version, tmp_path):
    data = saved(ARRAYS[name], version=version)
    with tk.open(data) as ckpt:
        assert np.array_equal(ckpt["array"].numpy(), np.load(io.BytesIO(data)))
        assert ckpt["array"].shape == ARRAYS[name].shape
    assert tk.scan(data, deep=True).verdict == "safe"


def test_archives_of_arrays(tmp_path):
    for write in (np.savez, np.savez_compressed):
        path = tmp_path / "arrays.npz"
        write(path, **ARRAYS)
        with tk.open(path) as ckpt:
            assert list(ckpt) == list(ARRAYS)
            assert all(np.array_equal(ckpt[name].numpy(), ARRAYS[name]) for name in ARRAYS)
        assert tk.scan(path).verdict == "safe"
        fits = {name: a for name, a in ARRAYS.items() if a.dtype.kind != "c"}
        tk.convert(path, tmp_path / "out.safetensors", drop_unsupported=True, overwrite=True)
        with tk.open(tmp_path / "out.safetensors") as ckpt:
            assert set(ckpt) == set(fits)
    np.savez(path, a=ARRAYS["c"], b=np.array([Runs()], dtype=object))
    assert tk.scan(path).verdict == "dangerous"


def test_text_and_records_are_values():
    records = np.zeros(3, dtype=[("a", "<f4"), ("b", [("c", "i1"), ("d", "U3")], (2,))])
    for array in (np.array(["ab", "c"]), np.array([b"x"]), records, np.array(["2020"], "M8[D]")):
        data = saved(array)
        with tk.open(data) as ckpt:
            assert list(ckpt) == []
        assert tk.scan(data).verdict == "safe"
        with pytest.raises(Damaged, match="an array of"):
            tk.open(data[:-1])


def test_several_arrays_in_one_file():
    data = saved(ARRAYS["c"], ARRAYS["big"])
    with tk.open(data) as ckpt:
        assert [ckpt[name].shape for name in ckpt] == [(2, 3), (5,)]
    assert tk.scan(data + b"more").verdict == "suspicious"


def test_arrays_of_objects_are_programs():
    assert tk.scan(saved(np.array([1, None, "a"], dtype=object))).verdict == "safe"
    evil = saved(np.array([Runs()], dtype=object))
    assert tk.scan(evil).verdict == "dangerous"
    # What numpy takes for objects, too, however it is spelled.
    for spelled in (b"'O,'", b"'O4'", b"'>O'"):
        assert tk.scan(evil.replace(b"'|O'", spelled)).verdict == "dangerous"


@pytest.mark.parametrize(
    "text",
    ["{}", "{'descr': '<f4', }", "[1]", "{'a': 1", "{'a': __import__('os')}", "{'a': 'x' 'y'}",
     "{1: 2}", "{'a': 1e5}", "(" * 50_000, "{'a': '\\x41'}", "{'a': 1} {}", "{'a': 9" + "9" * 60],
)  # fmt: skip
def test_headers_that_are_none(text):
    header = text.encode()
    data = b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header
    with pytest.raises((Damaged, Unsupported)):
        tk.open(data)


def test_the_grammar_of_headers():
    text = (
        "{'descr': [('a', '<f4', (2,)), (\"b\", '|O')], 'shape': (3L, 4,), 'x': (1), 'y': None, }"
    )
    expected = {"descr": [("a", "<f4", (2,)), ("b", "|O")], "shape": (3, 4), "x": 1, "y": None}
    assert _npy_header.parse(text, "") == expected


def test_shapes_that_the_file_cannot_hold():
    data = saved(np.zeros(3))
    for shape in (b"(4,)", b"(-3)", b"(1,-1)", b"(9999999999999999999999,)", b"(True,)"):
        changed = data.replace(b"(3,), ", shape.ljust(6))
        with pytest.raises(ReadError):
            tk.open(changed)


def test_a_flipped_bit_of_an_array_in_an_archive_is_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, small=np.ones(3), large=np.ones(300_000))
    assert tk.scan(path).verdict == "safe"
    whole = path.read_bytes()
    for name, deep in ((b"small.npy", False), (b"large.npy", True)):
        data = bytearray(whole)
        data[data.index(np.float64(1).tobytes(), data.index(name))] ^= 1
        path.write_bytes(data)
        report = tk.scan(path, deep=deep)
        assert [f.rule for f in report.files[0].findings] == ["container/bad-checksum"]
    assert tk.scan(path).verdict == "safe"  # what a storage holds is compared by --deep


def test_who_wrote_it(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    assert {tk.inspect(tmp_path / name).writer for name in ("a.npy", "a.npz")} == {"numpy"}
