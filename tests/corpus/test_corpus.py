"""Golden files are read for ever as they were read on the day they were made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import tensorkeep as tk

CORPUS = Path(__file__).resolve().parent
FORMATS = (
    "torch_zip",
    "safetensors",
    "sharded",
    "dcp",
    "deepspeed",
    "torchscript",
    "torch_package",
    "pt2",
    "bundle",
    "torch_legacy",
    "torch_tar",
    "pickle",
    "npy",
    "runs",
)
CASES = sorted(path.parent for name in FORMATS for path in (CORPUS / name).glob("*/facts.json"))
LARGEST = 40_000  # bytes of a file: alignment to 4,096 takes nine times that
TOTAL = 3_000_000

every_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}"
)


def target(case):
    """The one file of a case, or the folder where there are several."""
    files = [path for path in case.iterdir() if path.name != "facts.json"]
    return files[0] if len(files) == 1 else case


def facts(case):
    return json.loads((case / "facts.json").read_text(encoding="ascii"))


@every_case
def test_what_inspect_says_stays(case):
    expected = facts(case)
    del expected["digests"]
    report = json.loads(json.dumps(tk.inspect(target(case)).to_dict()))
    for key in ("sections", "tensors"):
        # A record may learn to say more; what it said stays.
        assert len(report[key]) == len(expected[key])
        for now, then in zip(report.pop(key), expected.pop(key), strict=True):
            assert {name: now.get(name, "gone") for name in then} == then
    assert {key: report.get(key, "gone") for key in expected} == expected


@every_case
def test_every_tensor_has_its_bytes(case):
    with tk.open(target(case)) as ckpt:
        assert {name: ckpt[name].digest() for name in ckpt} == facts(case)["digests"]


@every_case
def test_nothing_is_odd_about_an_honest_file(case):
    path = target(case)
    report = tk.scan(path, deep=True)
    assert [found.what for found in report.findings] == []
    assert report.verdict == "safe"
    assert tk.verify(path).damaged == []


def sums():
    lines = (CORPUS / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def data_files():
    written = (path for path in CORPUS.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(CORPUS).as_posix(): path
        for path in written
        if path.suffix not in {".py", ".pyc"} and path.name not in {"SHA256SUMS", ".gitattributes"}
    }


def test_no_file_was_changed_added_or_lost():
    now = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in data_files().items()
    }
    assert now == sums()


def test_the_corpus_stays_small():
    sizes = [path.stat().st_size for path in data_files().values()]
    assert max(sizes) <= LARGEST
    assert sum(sizes) <= TOTAL


def test_every_format_has_cases():
    assert {case.parent.name for case in CASES} == set(FORMATS)
    assert len(CASES) >= 25
