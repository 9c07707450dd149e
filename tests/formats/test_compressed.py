"""Compressed streams: what is in them is read; what would fill the memory is not."""

import bz2
import gzip
import io
import lzma
import pickle
import time
import zlib

import numpy as np
import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import Damaged, LimitExceeded
from tensorkeep.facts import Limits

PACKERS = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
}


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_formats_in_streams(pack):
    value = {"weight": torch.arange(6.0)}
    for data in (saved(value), saved(value, _use_new_zipfile_serialization=False)):
        with tk.open(pack(data)) as ckpt:
            assert ckpt["weight"].numpy().tolist() == value["weight"].tolist()
        assert tk.scan(pack(data), deep=True).verdict == "safe"
        for cut in (1, 10, len(pack(data)) // 2):
            with pytest.raises(Damaged):
                tk.open(pack(data)[:-cut])


def test_what_joblib_wrote_before_0_10():
    """A header of the length in hexadecimal, and a zlib stream."""
    data = pickle.dumps([1, 2], 2)
    for blank in (b"", b" "):
        old = b"ZF" + hex(len(data)).encode().ljust(19) + blank + zlib.compress(data)
        with tk.open(old) as ckpt:
            assert ckpt.values == [1, 2]


def test_several_streams_are_one_file():
    first, second = pickle.dumps([1]), pickle.dumps([2])
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        with tk.open(pack(first) + pack(second)) as ckpt:
            assert ckpt.values == [[1], [2]]
    report = tk.scan(gzip.compress(first) + b"more")
    assert {found.rule for found in report.findings} == {"container/hidden-bytes"}
    assert tk.scan(gzip.compress(first) + bytes(512)).verdict == "safe"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_forty_megabytes_of_opcodes_in_forty_kilobytes(pack):
    data = pack(b"\x80\x02" + b"N0" * 20_000_000 + b"N.")
    started = time.process_time()
    report = tk.scan(data)
    assert time.process_time() - started < 10
    assert report.verdict == "dangerous"
    assert "container/amplification" in {found.rule for found in report.findings}


def test_zeros_are_large_and_no_attack():
    data = gzip.compress(pickle.dumps(np.zeros(4_000_000)))
    assert tk.scan(data).verdict == "unknown"
    with pytest.raises(LimitExceeded):
        tk.open(data)
    assert tk.scan(data, limits=Limits(max_ratio=2000)).verdict == "safe"


def test_other_streams_in_a_directory_are_skipped(tmp_path):
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"a line of text\n" * 100))
    (tmp_path / "model.pkl.gz").write_bytes(gzip.compress(pickle.dumps([1])))
    report = tk.scan(tmp_path)
    assert (report.verdict, report.skipped) == ("safe", 1)
