"""`diff` of two 2 GB checkpoints, whole process, beside the loops that one would write."""

from __future__ import annotations

from typing import Any

import files
from common import (
    MOST_RUNS,
    Bench,
    Contestant,
    figure,
    interleave,
    python,
    ratio,
    row_of,
    target,
    tensorkeep,
)

# One tensor at a time, in float32, as people write it.
TORCH = """
import sys, torch
a, b = (torch.load(path, mmap=True) for path in sys.argv[1:])
for name, x in a.items():
    x, y = x.float(), b[name].float()
    gap = x - y
    largest, relative = gap.abs().max().item(), (gap.norm() / x.norm()).item()
    cosine = (torch.dot(x.flatten(), y.flatten()) / (x.norm() * y.norm())).item()
    if largest:
        print(name, largest, relative, cosine)
"""
NUMPY = """
import sys, numpy as np
from safetensors import safe_open
a, b = (safe_open(path, "numpy") for path in sys.argv[1:])
for name in a.keys():
    x, y = (file.get_tensor(name).astype("f4", copy=False) for file in (a, b))
    gap = x - y
    largest, relative = np.abs(gap).max(), np.linalg.norm(gap) / np.linalg.norm(x)
    cosine = np.vdot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))
    if largest:
        print(name, largest, relative, cosine)
"""
OURS, OURS_SAFE = "tensorkeep diff, .pth", "tensorkeep diff, safetensors"
LOOP, NUMPY_LOOP = "torch loop", "numpy loop"


def ways(bench: Bench, dtype: str, which: str) -> list[Contestant]:
    """`which`: what the second file is: "other" (all tensors differ) or "same"."""
    first = [files.pair(bench, dtype, "first", ending) for ending in (".pth", ".safetensors")]
    second = [files.pair(bench, dtype, which, ending) for ending in (".pth", ".safetensors")]
    differ = (0,) if which == "same" else (1,)
    return [
        Contestant(OURS, tensorkeep("diff", first[0], second[0]), accept=differ),
        Contestant(OURS_SAFE, tensorkeep("diff", first[1], second[1]), accept=differ),
        Contestant(LOOP, python(TORCH, first[0], second[0])),
        Contestant(NUMPY_LOOP, python(NUMPY, first[1], second[1])),
    ]


def measure(bench: Bench) -> dict[str, Any]:
    """float32 and float16, everything different; and float32, nothing."""
    cases = {}
    for name, dtype, which in (
        ("2 GB, float32, all different", "float32", "other"),
        ("2 GB, float32, the same", "float32", "same"),
        ("2 GB, float16, all different", "float16", "other"),
    ):
        size = files.pair(bench, dtype, "first", ".pth").stat().st_size
        rows = interleave(ways(bench, dtype, which), min(bench.runs, MOST_RUNS))
        cases[name] = {
            "bytes": size,
            "rows": rows,
            "times_faster": ratio(rows, LOOP, OURS),
            "times_faster_numpy": ratio(rows, NUMPY_LOOP, OURS_SAFE),
            "times_faster_cpu": ratio(rows, LOOP, OURS, "cpu_ms"),
            "times_faster_numpy_cpu": ratio(rows, NUMPY_LOOP, OURS_SAFE, "cpu_ms"),
        }
    return {"cases": cases, "targets": targets(cases)}


def targets(cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for."""
    found = []
    for name, case in cases.items():
        peak = max(row_of(case["rows"], ours)["peak_mb"] for ours in (OURS, OURS_SAFE))
        times, times_numpy = case["times_faster"], case["times_faster_numpy"]
        found += [
            target(f"{name}: torch loop / ours", 3, times, at_least=True),
            target(f"{name}: numpy loop / ours", 1.7, times_numpy, at_least=True),
            target(f"{name}: MB of memory at the peak", 150, peak),
        ]
    return found


if __name__ == "__main__":
    figure("diffing", measure)
