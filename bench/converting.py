"""`convert` of a 2 GB checkpoint to safetensors, whole process, with the durability named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import files
from common import (
    Bench,
    Contestant,
    figure,
    interleave,
    python,
    ratio,
    removal,
    row_of,
    target,
    tensorkeep,
)

TORCH = """
import os, sys, torch
from safetensors.torch import save_file
source, result, mmap, durable = sys.argv[1:]
save_file(torch.load(source, mmap=mmap == "mmap"), result)
if durable == "fsync":
    with open(result, "rb") as file:
        os.fsync(file.fileno())
"""
# The same command with the kernel's flush switched off: for the peers that do without it.
NOT_DURABLE = """
import os, sys
os.fsync = lambda descriptor: None
from tensorkeep.cli import main
main(sys.argv[1:])
"""
OURS, OURS_FAST = "tensorkeep convert", "tensorkeep convert, no fsync"
LOAD, LOAD_FSYNC = "torch.load + save_file", "torch.load + save_file + fsync"
MMAP, MMAP_FSYNC = "torch.load(mmap) + save_file", "torch.load(mmap) + save_file + fsync"
CP, CP_FSYNC = "cp", "cp + fsync"


def ways(source: Path, result: Path) -> list[Contestant]:
    """Every way twice: flushed to the device, and left to the kernel."""
    commands = {
        OURS: tensorkeep("convert", source, result),
        LOAD_FSYNC: python(TORCH, source, result, "", "fsync"),
        MMAP_FSYNC: python(TORCH, source, result, "mmap", "fsync"),
        CP_FSYNC: ["sh", "-c", 'cp "$0" "$1" && sync "$1"', source, result],
        OURS_FAST: python(NOT_DURABLE, "convert", source, result),
        LOAD: python(TORCH, source, result, "", ""),
        MMAP: python(TORCH, source, result, "mmap", ""),
        CP: ["cp", source, result],
    }
    gone = removal(result)
    return [Contestant(name, command, gone, gone) for name, command in commands.items()]


def measure(bench: Bench) -> dict[str, Any]:
    """2 GB beside everybody; 8 GB alone, for its memory."""
    result = bench.folder / "result.safetensors"
    source = files.large(bench)
    rows = interleave(ways(source, result), bench.runs)
    eight = files.sparse(bench, 8)
    alone = interleave(ways(eight, result)[:1], bench.runs)
    peaks = row_of(rows, OURS)["peak_mb"], alone[0]["peak_mb"]
    cases = {
        "2 GB": {
            "bytes": source.stat().st_size,
            "rows": rows,
            "times_faster_fsync": ratio(rows, LOAD_FSYNC, OURS),
            "times_faster_mmap_fsync": ratio(rows, MMAP_FSYNC, OURS),
            "times_cp_fsync": ratio(rows, OURS, CP_FSYNC),
            "times_faster": ratio(rows, LOAD, OURS_FAST),
            "times_faster_mmap": ratio(rows, MMAP, OURS_FAST),
            "times_cp": ratio(rows, OURS_FAST, CP),
            "times_faster_ours_alone_fsync": ratio(rows, LOAD, OURS),
        },
        "8 GB": {
            "bytes": eight.stat().st_size,
            "source": "holes: read as zeros, written whole",
            "rows": alone,
        },
    }
    return {"cases": cases, "targets": targets(cases["2 GB"], *peaks)}


def targets(case: dict[str, Any], peak: float, peak_of_eight: float) -> list[dict[str, Any]]:
    """What was asked for."""
    return [
        target(
            "2 GB: torch.load + save_file / ours, both with fsync",
            4,
            case["times_faster_fsync"],
            at_least=True,
        ),
        target(
            "2 GB: torch.load + save_file / ours, both without",
            4,
            case["times_faster"],
            at_least=True,
        ),
        target("2 GB: MB of memory at the peak", 48, peak),
        target("8 GB: MB of memory at the peak", 48, peak_of_eight),
    ]


if __name__ == "__main__":
    figure("converting", measure)
