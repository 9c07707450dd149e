"""Pickles outside containers: which files are some, what is in them, and joblib's arrays."""

import base64
import collections
import functools
import io
import pickle
import struct

import joblib
import numpy as np
import pytest
import torch

import tensorkeep as tk
from tensorkeep import formats
from tensorkeep.formats import raw_pickle
from tensorkeep.stores.memory import MemoryBlob

VALUES = {"epoch": 3, "loss": [0.5, 1.5], "text": "a", "od": collections.OrderedDict(a=None)}
SYSTEM = b"cos\nsystem\n(S'echo tensorkeep'\ntR."


class Runs:
    def __reduce__(self):
        import os

        return os.system, ("echo tensorkeep",)


def recognised(data):
    return raw_pickle.identify(MemoryBlob(data), data[: formats.HEAD])


def rules(data):
    return {found.rule for found in tk.scan(data).findings}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values(protocol):
    data = pickle.dumps(VALUES, protocol)
    with tk.open(data) as ckpt:
        assert ckpt.values == {**VALUES, "od": {"a": None}}
    assert tk.scan(data).verdict == "safe"


PICKLES = {
    "only an import": b"cos\nsystem\n.",
    "code before a broken opcode": SYSTEM[:-1] + b"\xff",
    "protocol 0": SYSTEM,
    "plain ones in a row, then code": b"N.N.N." + SYSTEM,
    "junk before code": b"N0" * 300_000 + SYSTEM,
    "a long text before code": b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"0" + SYSTEM,
    "a call by INST": b"(S'echo tensorkeep'\nios\nsystem\n.",
    "only a number": b"I1\n.",
}


@pytest.mark.parametrize("data", PICKLES.values(), ids=PICKLES)
def test_pickles_without_a_magic_are_found(data, tmp_path):
    assert recognised(data)
    # In a directory too, whatever the name.
    (tmp_path / "notes.txt").write_bytes(data)
    report = tk.scan(tmp_path)
    assert len(report.files) == 1
    assert report.verdict == ("safe" if b"system" not in data else "dangerous")


TEXTS = {
    "prose": b"columns of numbers\nare no pickle\n" * 40,
    "an import": b"import os\nimport sys\n\nprint(os.name)\n",
    "csv": b"col1\ncol2\n1,2\n",
    "lisp": b"(in-package :foo)\n(defun bar ())\n" * 20,
    "a name": b"N. Smith, author\n",
    "a list": b"]\n",
    "version": b"VERSION\n1.0\n",
    "yaml": b"config:\n  - a: 1\n",
    "capitals": b"README\nINSTALL\nLICENSE\n",
    "dots": b"....\n....\n",
    "a bitmap": b"BM" + struct.pack("<IHHI", 1 << 20, 0, 0, 54) + bytes(600),
    "empty": b"",
}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_text_is_no_pickle(data, tmp_path):
    assert not recognised(data)
    (tmp_path / "notes").write_bytes(data)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    report = tk.scan(tmp_path)
    assert (report.verdict, report.skipped) == ("safe", 1)


def test_text_of_python_2_is_read_as_its_loaders_read_it():
    """8-bit text that is no UTF-8: `encoding="latin1"` goes on where the default stops."""
    text = b"\x80\x02U\x02\xff\xfe"
    with tk.open(text + b".") as ckpt:
        assert ckpt.values == "\xff\xfe"
    assert tk.scan(text + b".").verdict == "safe"
    assert tk.scan(text + b"0" + SYSTEM).verdict == "dangerous"


def test_every_pickle_of_a_stack_is_a_program():
    honest = pickle.dumps(VALUES) + pickle.dumps([1], 0) + pickle.dumps("x", 2)
    assert tk.scan(honest).verdict == "safe"
    with tk.open(honest) as ckpt:
        assert ckpt.values[1:] == [[1], "x"]
    assert tk.scan(honest + SYSTEM).verdict == "dangerous"
    assert rules(honest + b"\0\0\0") == {"container/hidden-bytes"}


def test_tensors_that_pickle_writes(agree, tmp_path):
    """`pickle.dumps` of a tensor holds a file of torch's old format."""
    base = torch.arange(12.0)
    value = {"a": base.view(3, 4), "b": base[2:5], "c": torch.ones(2, dtype=torch.bfloat16)}
    for protocol in (2, 4, 5):
        path = tmp_path / "tensors.pkl"
        path.write_bytes(pickle.dumps(value, protocol))
        agree(path, value)
    evil = io.BytesIO()
    torch.save(Runs(), evil, _use_new_zipfile_serialization=False)
    data = evil.getvalue()
    given = b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(data)) + data
    report = tk.scan(b"\x80\x04" + given + b"\x85R.")
    assert report.verdict == "dangerous"
    assert any("posix.system" in found.what for found in report.findings)


HIDDEN = {
    "in bytes": pickle.dumps(Runs()),
    "in bytes, protocol 0": pickle.dumps(Runs(), 0),
    "in bytes of bytes": pickle.dumps(pickle.dumps(pickle.dumps(Runs()))),
    "in base 64": base64.b64encode(pickle.dumps(Runs())).decode(),
    "in base 64, protocol 0": base64.b64encode(pickle.dumps(Runs(), 0)).decode(),
    "in bytes thirty times": functools.reduce(
        lambda inner, _: pickle.dumps(inner), range(30), pickle.dumps(Runs())
    ),
    "in hexadecimal": pickle.dumps(Runs()).hex(),
    "in hexadecimal, protocol 0": pickle.dumps(Runs(), 0).hex().upper(),
}


@pytest.mark.parametrize("value", HIDDEN.values(), ids=HIDDEN)
def test_a_program_in_data_is_odd(value):
    for protocol in (0, 2, 3, 4):
        assert rules(pickle.dumps({"cache": value}, protocol)) == {"container/hidden-pickle"}


@pytest.mark.parametrize(
    "value",
    [
        pickle.dumps(VALUES),
        pickle.dumps(np.arange(3.0)),
        bytes(range(256)) * 40,
        np.random.default_rng(1).bytes(20_000),
        base64.b64encode(b"some bytes of an image, as they come").decode(),
        "Your text that begins as base 64 may begin",
        "8004" + "95" * 30,
        "630a" * 10,
        b"columns\nof\ntext",
    ],
)
def test_plain_data_is_not_odd(value):
    assert tk.scan(pickle.dumps({"cache": value})).verdict == "safe"


ARRAYS = {
    "c": np.arange(6.0).reshape(2, 3),
    "f": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
    "big": np.arange(5, dtype=">c8") * 1j,
    "none": np.zeros((2, 0)),
    "scalar": np.array(2.5),
}


def dumped(value, **options):
    file = io.BytesIO()
    joblib.dump(value, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3)])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_joblib(compress, protocol):
    data = dumped({**ARRAYS, "n": 1}, compress=compress, protocol=protocol)
    assert tk.scan(data, deep=True).verdict == "safe"
    with tk.open(data) as ckpt:
        assert ckpt.values == {"n": 1}
        for name, array in ARRAYS.items():
            read = ckpt[name].numpy()
            assert read.shape == array.shape
            assert np.array_equal(read, array)


def test_what_lies_between_and_in_the_arrays_of_joblib():
    honest = {"a": ARRAYS["c"], "o": np.array([1, None, "x"], dtype=object), "t": np.array(["ab"])}
    assert tk.scan(dumped(honest)).verdict == "safe"
    for value in (
        [ARRAYS["c"], Runs(), ARRAYS["f"]],
        [ARRAYS["c"], np.array([1, Runs()], dtype=object)],
        [ARRAYS["c"], np.array([[Runs()]], dtype=object), ARRAYS["f"]],
    ):
        assert tk.scan(dumped(value)).verdict == "dangerous"
    cut = dumped(honest)[:-300]
    assert tk.scan(cut).verdict == "unknown"


def test_a_file_of_two_formats_is_judged_as_both():
    """A tar archive whose first name is a program: a tar to torch, a pickle to pickle."""
    import tarfile

    program = b"cos\nsystem\n(S'echo tensorkeep'\ntR."
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in (program.decode(), "model.pkl"):
            data = pickle.dumps(1)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert tk.scan(file.getvalue()).verdict == "dangerous"


DOUBLED = b"N" + b"2\x86" * 50


@pytest.mark.parametrize("data", [b"\x80\x02}" + DOUBLED + b"Ns.", b"}" + DOUBLED + b"Ns."])
def test_a_pickle_that_costs_too_much_is_one_and_says_what_and_where(data):
    assert recognised(data)
    (found,) = tk.scan(data).findings
    assert (found.rule, found.severity) == ("container/amplification", "dangerous")
    assert "Limits.max_expansion" in found.what
    assert "opcode SETITEM" in found.what
    assert found.what.endswith("pass larger Limits.")


def test_deep_keys_are_too_costly_and_no_amplification():
    (found,) = tk.scan(b"\x80\x02}N" + b"\x85" * 5_000 + b"Ns.").findings
    assert (found.rule, found.severity) == ("read/limit", "unknown")


def test_a_pickle_that_breaks_off_says_where():
    (found,) = tk.scan(b"\x80\x02](2l.").findings
    assert found.severity == "unknown"
    assert "byte 4, opcode DUP" in found.what
