"""`quantize` of a 2 GB checkpoint to int8, whole process, beside the loops that one would write.

Ours also measures the error of every tensor; the loops do not.
"""

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
    removal,
    row_of,
    target,
    tensorkeep,
)

# One tensor at a time, in float32, as people write it.
TORCH = """
import os, sys, torch
from safetensors.torch import save_file
source, result, durable = sys.argv[1:]
made = {}
for name, weight in torch.load(source, mmap=True).items():
    weight = weight.float()
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    made[name] = torch.round(weight / scale).clamp(-127, 127).to(torch.int8)
    made[name + "_scale"] = scale
save_file(made, result)
if durable == "fsync":
    with open(result, "rb") as file:
        os.fsync(file.fileno())
"""
NUMPY = """
import os, sys, numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
source, result, durable = sys.argv[1:]
made = {}
with safe_open(source, "numpy") as file:
    for name in file.keys():
        weight = file.get_tensor(name).astype("f4", copy=False)
        scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(127)
        made[name] = np.clip(np.round(weight / scale), -127, 127).astype("i1")
        made[name + "_scale"] = scale
save_file(made, result)
if durable == "fsync":
    with open(result, "rb") as file:
        os.fsync(file.fileno())
"""
# The same command with the kernel's flush switched off.
NOT_DURABLE = """
import os, sys
os.fsync = lambda descriptor: None
from tensorkeep.cli import main
main(sys.argv[1:])
"""
OURS, OURS_SAFE = "tensorkeep quantize, .pth", "tensorkeep quantize, safetensors"
LOOP, NUMPY_LOOP = "torch loop", "numpy loop"
FAST = ", no fsync"


def ways(bench: Bench, dtype: str, *, durable: bool) -> list[Contestant]:
    """Each writes safetensors; flushed to the device, or left to the kernel."""
    result = bench.folder / "quantized.safetensors"
    pth, safe = (files.pair(bench, dtype, "first", ending) for ending in (".pth", ".safetensors"))
    gone = removal(result)
    flush, suffix = ("fsync", "") if durable else ("", FAST)

    def ours(source: Any) -> list[Any]:
        words = ("quantize", source, result)
        return tensorkeep(*words) if durable else python(NOT_DURABLE, *words)

    commands = {
        OURS: ours(pth),
        OURS_SAFE: ours(safe),
        LOOP: python(TORCH, pth, result, flush),
        NUMPY_LOOP: python(NUMPY, safe, result, flush),
    }
    return [Contestant(name + suffix, command, gone, gone) for name, command in commands.items()]


def case(bench: Bench, dtype: str) -> dict[str, Any]:
    """All ways on the file of one dtype."""
    size = files.pair(bench, dtype, "first", ".pth").stat().st_size
    both = [*ways(bench, dtype, durable=True), *ways(bench, dtype, durable=False)]
    rows = interleave(both, min(bench.runs, MOST_RUNS))
    return {
        "bytes": size,
        "rows": rows,
        "times_faster_fsync": ratio(rows, LOOP, OURS),
        "times_faster_numpy_fsync": ratio(rows, NUMPY_LOOP, OURS_SAFE),
        "times_faster": ratio(rows, LOOP + FAST, OURS + FAST),
        "times_faster_numpy": ratio(rows, NUMPY_LOOP + FAST, OURS_SAFE + FAST),
        "times_faster_cpu": ratio(rows, LOOP + FAST, OURS + FAST, "cpu_ms"),
        "times_faster_numpy_cpu": ratio(rows, NUMPY_LOOP + FAST, OURS_SAFE + FAST, "cpu_ms"),
    }


def measure(bench: Bench) -> dict[str, Any]:
    """float32 and float16."""
    cases = {f"2 GB, {dtype}": case(bench, dtype) for dtype in ("float32", "float16")}
    return {"cases": cases, "targets": targets(cases)}


def targets(cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for."""
    found = []
    for name, one in cases.items():
        peak = max(row_of(one["rows"], ours)["peak_mb"] for ours in (OURS, OURS_SAFE))
        found += [
            target(f"{name}: torch loop / ours", 3, one["times_faster"], at_least=True),
            target(f"{name}: numpy loop / ours", 1.7, one["times_faster_numpy"], at_least=True),
            target(f"{name}: MB of memory at the peak", 150, peak),
        ]
    return found


if __name__ == "__main__":
    figure("quantizing", measure)
