"""No false alarm: what honest writers write is safe, by default and with --deep."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import tensorkeep as tk

sys.path.insert(0, str(Path(__file__).resolve().parent))
from catalogue import CASES, ODD  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes a case once for both depths."""
    paths: dict[str, Path] = {}

    def write(name: str, case) -> Path:
        if name not in paths:
            paths[name] = case(tmp_path_factory.mktemp("case"))
        return paths[name]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield write


def said(path: Path, deep: bool) -> list[str]:
    report = tk.scan(path, deep=deep)
    found = [f"{f.rule}: {f.what} ({f.where})" for file in report.files for f in file.findings]
    return [report.verdict, *found]


@pytest.mark.parametrize("name", CASES)
def test_an_honest_file_is_safe_and_nothing_is_said_of_it(name, written):
    path = written(name, CASES[name])
    assert said(path, deep=False) == ["safe"]
    assert said(path, deep=True) == ["safe"]


@pytest.mark.parametrize("name", ODD)
def test_an_honest_file_that_cannot_be_safe_says_why(name, written):
    case, rules = ODD[name]
    report = tk.scan(written(name, case))
    assert report.verdict == "suspicious"
    assert {f.rule for file in report.files for f in file.findings} == rules


ALONE = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
import tensorkeep as tk
for path in sys.argv[2:]:
    print(tk.scan(path).verdict)
"""
LIBRARIES = "torch,numpy,transformers,accelerate,lightning,joblib,safetensors,scipy"
SAMPLE = [name for name in CASES if name.startswith(("model/", "plain/", "optimizer/"))][::4]


def test_the_verdict_is_the_same_where_nothing_is_installed(written):
    paths = [str(written(name, CASES[name])) for name in SAMPLE]
    paths.append(str(written("odd/own-class", ODD["odd/own-class"][0])))
    command = [sys.executable, "-c", ALONE, LIBRARIES, *paths]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.stderr == ""
    assert ended.stdout.split() == ["safe"] * len(SAMPLE) + ["suspicious"]


def test_there_are_enough_of_them():
    assert len(CASES) >= 150
