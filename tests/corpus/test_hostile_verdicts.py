"""Every hostile sample gets the verdict and the rules that stand beside it. Payloads are inert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tensorkeep as tk

CASES = sorted(Path(__file__).parent.glob("hostile/*/expected.json"))


def test_there_are_many():
    assert len(CASES) >= 25


@pytest.mark.parametrize("expected", CASES, ids=lambda path: path.parent.name)
def test_the_verdict(expected):
    wanted = json.loads(expected.read_text())
    (sample,) = [path for path in expected.parent.iterdir() if path.name != "expected.json"]
    deep = bool(wanted.get("deep"))
    report = tk.scan(sample, deep=deep)
    assert report.verdict == wanted["verdict"] != "safe"
    assert set(wanted["rules"]) <= {finding.rule for finding in report.findings}
