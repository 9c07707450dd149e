"""Hostile files under a guard: `torch.load(weights_only=False)` runs nothing of any of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tensorkeep as tk

HERE = Path(__file__).resolve().parent
CASES = sorted(path.parent for path in HERE.glob("*/expected.json"))
# What costs seconds a call, by reaching a limit that is meant for honest files of any size: read by
# one call, or by none, unless time is no matter.
ONCE = {"code_before_a_limit", "deep_nesting", "many_arguments", "text_encoded_again_and_again"}
LONG = {"deep_key", "hundred_thousand_pickles"}
SOURCE = str(Path(tk.__file__).resolve().parent.parent)


def target(case: Path) -> Path:
    (path,) = (path for path in case.iterdir() if path.name != "expected.json")
    return path


def kind(case: Path) -> str:
    return json.loads((case / "expected.json").read_text())["kind"]


def test_every_kind_is_read_each_time():
    quick = [case for case in CASES if case.name not in ONCE | LONG]
    assert len(quick) == len(CASES) - len(ONCE | LONG)
    assert {kind(case) for case in quick} == {kind(case) for case in CASES}


@pytest.fixture(scope="module", params=["quick", pytest.param("all", marks=pytest.mark.long)])
def report(request, tmp_path_factory, digits):
    """What the child saw, by the path of each file."""
    once, left_out = (ONCE, LONG) if request.param == "quick" else (set(), set())
    command = [sys.executable, "-X", "utf8", str(HERE / "guarded_child.py"), str(digits)]
    command += [str(target(case)) for case in CASES if case.name not in once | left_out]
    command += ["--once", *(str(target(case)) for case in CASES if case.name in once)]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": SOURCE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=500)
    assert ended.returncode == 0, ended.stderr[-2000:]
    # The payloads that print are among what must not happen.
    assert ended.stdout.count("\n") == 1
    return json.loads(ended.stdout)


def test_nothing_of_any_file_runs(report):
    odd = {path: seen["events"] for path, seen in report["files"].items() if seen["events"]}
    assert odd == {}


def test_no_unpickler_looks_anything_up(report):
    assert [path for path, seen in report["files"].items() if seen["classes"]] == []


def test_every_file_is_loaded_refused_or_an_error_that_torch_could_raise(report):
    seen = {name for each in report["files"].values() for name, _ in each["results"].values()}
    assert seen <= {"loaded", "Refused", "Unloadable"}


def test_no_code_is_let_through(report):
    for path, each in report["files"].items():
        for call in ("script", "package"):
            assert each["results"].get(call, ["none"])[0] != "loaded", path


def test_it_takes_seconds_at_most(report):
    slow = {
        (path, call): spent
        for path, each in report["files"].items()
        for call, (_, spent) in each["results"].items()
        if spent > 20
    }
    assert slow == {}
