"""What a command costs before it does anything: the libraries that it loads.

Each case runs in a child process and looks at `sys.modules` when the command has ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = {"torch", "numpy", "safetensors", "rich"}  # rich draws, and only on a terminal

COMMAND = """
import json, runpy, sys
report = sys.argv.pop(1)
try:
    runpy.run_module("tensorkeep", run_name="__main__", alter_sys=True)
finally:
    with open(report, "w") as file:
        json.dump(sorted(sys.modules), file)
"""

PYTHON = """
import json, sys
report, source, target = sys.argv[1:]
import tensorkeep as tk
{}
with open(report, "w") as file:
    json.dump(sorted(sys.modules), file)
"""


def loaded(code: str, *arguments: str | Path, report: Path) -> set[str]:
    """Run `code` in a fresh Python with its output piped; the top-level modules it loaded."""
    command = [sys.executable, "-c", code, str(report), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(report.read_text())}


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan", "SOURCE"],
        ["scan", "--format", "json", "SOURCE"],
        ["inspect", "SOURCE"],
        ["inspect", "--format", "json", "SOURCE"],
        ["convert", "SOURCE", "TARGET"],
        ["convert", "--verify", "SOURCE", "TARGET"],
        ["match", "SOURCE", "SOURCE"],
        ["verify", "SOURCE"],
        ["--help"],
        ["scan", "--help"],
    ],
    ids=" ".join,
)
def test_command_loads_nothing_slow(arguments: list[str], tmp_path: Path, digits: Path) -> None:
    places = {"SOURCE": str(digits), "TARGET": str(tmp_path / "out.safetensors")}
    given = [places.get(word, word) for word in arguments]
    assert not loaded(COMMAND, *given, report=tmp_path / "modules.json") & SLOW


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "tk.scan(source)",
        "tk.inspect(source)",
        "tk.convert(source, target)",
        "tk.match(source, source)",
        "tk.verify(source)",
        "tk.open(source).close()",
    ],
)
def test_function_loads_nothing_slow(statement: str, tmp_path: Path, digits: Path) -> None:
    code = PYTHON.format(statement)
    target = tmp_path / "out.safetensors"
    modules = loaded(code, digits, target, report=tmp_path / "modules.json")
    assert not modules & SLOW
    assert statement or "click" not in modules


def test_the_list_is_not_empty_by_mistake(tmp_path: Path, digits: Path) -> None:
    report = tmp_path / "modules.json"
    target = tmp_path / "out.safetensors"
    assert "numpy" in loaded(PYTHON.format("import numpy"), digits, target, report=report)
