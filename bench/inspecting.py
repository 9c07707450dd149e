"""`inspect` of a 2 GB and a 20 GB checkpoint: from a fresh process to names, shapes and dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import files
from common import (
    Bench,
    Contestant,
    drop_cache,
    figure,
    interleave,
    nothing,
    python,
    ratio,
    row_of,
    target,
    tensorkeep,
)

TORCH = """
import sys, torch
state = torch.load(sys.argv[1], mmap=True)
print(len([(name, t.shape, t.dtype) for name, t in state.items()]))
"""
SAFE_OPEN = """
import sys
from safetensors import safe_open
with safe_open(sys.argv[1], "np") as file:
    parts = [(name, file.get_slice(name)) for name in file.keys()]
    print(len([(name, part.get_shape(), part.get_dtype()) for name, part in parts]))
"""
OURS, PEER, PEER_SAFE, BARE = "tensorkeep inspect", "torch.load(mmap=True)", "safe_open", "python"


def ways(path: Path, converted: Path | None, *, cold: bool) -> list[Contestant]:
    """The contestants for one file; cold ones find nothing of it in the page cache."""

    def before(file: Path) -> Any:
        return drop_cache(file) if cold else nothing

    found = [
        Contestant(OURS, tensorkeep("inspect", path), before(path)),
        Contestant(PEER, python(TORCH, path), before(path)),
    ]
    if converted is not None:
        command = python(SAFE_OPEN, converted)
        found.append(Contestant(PEER_SAFE, command, before(converted)))
    if not cold:
        found.append(Contestant("import torch", python("import torch")))
        found.append(Contestant(BARE, python("pass")))
    return found


def measure(bench: Bench) -> dict[str, Any]:
    """Warm and cold, 2 GB and 20 GB."""
    cases: dict[str, Any] = {}
    for gigabytes in (2, 20):
        path = files.large(bench) if gigabytes == 2 else files.sparse(bench, gigabytes)
        other = files.converted(bench) if gigabytes == 2 else None
        warm = interleave(ways(path, other, cold=False), bench.runs)
        cold = interleave(ways(path, other, cold=True), bench.runs)
        cases[f"{gigabytes} GB"] = {
            "bytes": path.stat().st_size,
            "warm": warm,
            "cold": cold,
            "times_faster": ratio(warm, PEER, OURS),
            "times_faster_cold": ratio(cold, PEER, OURS),
            "times_bare_python": ratio(warm, OURS, BARE),
        }
    return {"cases": cases, "targets": targets(cases)}


def targets(cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for."""
    rows = []
    for name, case in cases.items():
        warm, cold = row_of(case["warm"], OURS), row_of(case["cold"], OURS)
        rows += [
            target(
                f"{name}: torch.load(mmap=True) / ours", 12, case["times_faster"], at_least=True
            ),
            target(f"{name}: ms, whole process", 150, warm["wall_ms"]),
            target(f"{name}: kB read from the device, cold", 1000, cold["read_kb"]),
        ]
    return rows


if __name__ == "__main__":
    figure("inspecting", measure)
