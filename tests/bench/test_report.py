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
    assert set(report.load()) - {*report.LATER, *report.APART} == set(report.FIGURES)


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


def row(name: str, flagged: int, **at_once: float) -> dict[str, object]:
    counts = {"flagged": flagged, "clean": 1, "not read": 0}
    return {
        "name": name,
        "version": "1.0",
        "hostile": counts,
        "honest": {**counts, "flagged": 0},
        "one_by_one": {"files": 2, "median_ms": 80.0, "slowest_ms": 90.0, "peak_mb": 20.0},
        "at_once": at_once or None,
    }


def test_the_table_of_scanners_has_totals_only(report: ModuleType) -> None:
    slow = {"wall_ms": 9e4, "peak_mb": 50.0, "stopped_after_s": 90.0}
    result = {
        "files": {"hostile": 1234, "honest": 300},
        "rows": [row("tensorkeep", 7), row("other", 5, **slow)],
    }
    lines = report.scanners(result, report.load()["scanning"]).splitlines()
    assert lines[0] == "|  | tensorkeep 1.0 | other 1.0 |"
    assert "| 1,234 hostile files: flagged | 7 | 5 |" in lines
    assert "| all of them in one run |  | stopped after 90 s |" in lines
    assert any(line.startswith("| `scan` of 20,000 tensors | ") for line in lines)
    cases = {"`scan` of a bomb": {"bytes": 40_000, "rows": [{**slow, "exit": 2}]}}
    assert "| `scan` of a bomb (40 kB) | 90.0 s, 50 MB | 2 |" in report.alone(cases)


def test_figures_that_come_later_are_drawn(report: ModuleType) -> None:
    search = {"name": "search", "inside_ms": 96.0}
    whole = {"name": "tensorkeep match", "wall_ms": 420.0, "peak_mb": 31.0}
    cases = {"20000 tensors, blocks": [search, whole]}
    rows = report.matching({"cases": cases})
    assert rows == [
        ("`match` of 20000 tensors, blocks", "420 ms, 31 MB", "the search alone 96 ms", "")
    ]
    assert report.missing({"missing": {"2_GB, cold": "no direct reads"}}) == [
        ("2 GB, cold", "no direct reads")
    ]
    ours = {"name": "empty_weights, load_into(mmap)", "inside_ms": 80.0}
    slow = {"name": "build, torch.load, load_state_dict", "inside_ms": 8000.0}
    layer = {"bytes": 40e9, "inside_ms": 90.0, "touched_mb": 273.0, "layer_mb": 272.8}
    drawn = report.load_into(
        {"rows": [ours, slow], "times_faster": {slow["name"]: 100.0}, "layer": layer}
    )
    assert [line[-1] for line in drawn] == ["**100x** faster", ""]
    assert "40.0 GB" in drawn[1][0] and "273 MB of the file" in drawn[1][2]


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
