"""The README's measured part is what bench/report.py draws from the committed results."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def report(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_report", root / "bench" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_shows_the_committed_results(report: ModuleType, root: Path) -> None:
    text = (root / "README.md").read_text()
    assert report.replaced(text, report.render(report.load())) == text


def test_every_figure_has_results(report: ModuleType) -> None:
    assert set(report.load()) == set(report.FIGURES)


def test_results_are_whole(report: ModuleType) -> None:
    for name, result in report.load().items():
        assert result["figure"] == name
        assert result["scale"] == 1, "a rehearsal was committed"
        assert result["targets"]
        for row in result["targets"]:
            reached = row["got"] >= row["wanted"] if row["bound"] == "at least" else None
            assert row["met"] == (row["got"] <= row["wanted"] if reached is None else reached)


def test_results_name_no_place(root: Path) -> None:
    for path in (root / "bench" / "results").glob("*.json"):
        assert not re.search(r'"/|/tmp|/home|/root|/work|://', path.read_text()), path.name


def test_a_changed_number_shows(report: ModuleType) -> None:
    results = report.load()
    before = report.render(results)
    changed = json.loads(json.dumps(results))
    changed["inspecting"]["cases"]["2 GB"]["times_faster"] *= 2
    assert report.render(changed) != before


def test_a_missed_target_is_said(report: ModuleType) -> None:
    results = report.load()
    results["scanning"]["targets"][0].update(met=False, got=99.0)
    assert "99 (at most" in report.missed(results)


@pytest.mark.parametrize(
    ("times", "words"),
    [(37.6, "**38x** faster"), (3.04, "**3.0x** faster"), (1.0, "as fast"), (0.5, "2.0x slower")],
)
def test_ratio_in_words(report: ModuleType, times: float, words: str) -> None:
    assert report.faster(times) == words


def test_marks_must_be_there(report: ModuleType) -> None:
    with pytest.raises(ValueError, match="README"):
        report.replaced("nothing to replace", "x")
