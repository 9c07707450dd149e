"""How `inspect` and `convert` grow from 100 to 100,000 tensors."""

from __future__ import annotations

from typing import Any

import files
from common import Bench, Contestant, figure, interleave, removal, row_of, target, tensorkeep

COUNTS = (100, 1_000, 10_000, 100_000)
VERBS = ("inspect", "convert")
# Ten times the tensors for twelve times the time is still called near linear.
NEAR_LINEAR = 12.0


def ways(bench: Bench) -> list[Contestant]:
    """Both verbs at every size."""
    result = bench.folder / "result.safetensors"
    gone = removal(result)
    found = []
    for count in COUNTS:
        path = files.many(bench, bench.scaled(count))
        found.append(Contestant(f"inspect {count}", tensorkeep("inspect", path)))
        command = tensorkeep("convert", path, result)
        found.append(Contestant(f"convert {count}", command, gone, gone))
    return found


def curve(rows: list[dict], verb: str) -> list[dict[str, Any]]:
    """Points of one verb; `growth` is this time over the one at a tenth of the tensors."""
    points: list[dict[str, Any]] = []
    for count in COUNTS:
        row = row_of(rows, f"{verb} {count}")
        before = points[-1] if points else None
        growth = round(row["wall_ms"] / before["wall_ms"], 2) if before else None
        points.append({"tensors": count, **row, "growth": growth})
    return points


def measure(bench: Bench) -> dict[str, Any]:
    """Time and memory of both verbs at four sizes."""
    rows = interleave(ways(bench), bench.runs)
    curves = {verb: curve(rows, verb) for verb in VERBS}
    steepest = {verb: max(p["growth"] or 0 for p in curves[verb]) for verb in VERBS}
    return {
        "curves": curves,
        "targets": [
            target(f"{verb}: steepest growth per decade", NEAR_LINEAR, steepest[verb])
            for verb in VERBS
        ],
    }


if __name__ == "__main__":
    figure("curves", measure)
