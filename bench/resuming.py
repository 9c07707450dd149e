"""From a checkpoint of 2 GB to the first step: model and momentum of SGD, float32, cache warm.

A fresh process for each run, one after the other in turn; the objects are built before the clock
starts, and memory is conditioned as for `loading`. tensorkeep compares every byte with its SHA-256
on the way; the others compare nothing.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from common import HERE, Bench, Contestant, environment, figure, interleave, ratio, target

CHILD = HERE / "resuming_child.py"
OURS, TORCH = "tk.Run.resume", "torch.load, load_state_dict"
WAYS = {
    OURS: "ours",
    TORCH: "torch_load",
    "torch.load(mmap), load_state_dict": "torch_mapped",
}


def measure(bench: Bench) -> dict[str, Any]:
    """All ways in turn."""
    tensors = str(bench.scaled(32))
    folder = bench.folder / f"resuming{tensors}"
    if not (folder / "run.pth").exists():
        command = [sys.executable, str(CHILD), "make", str(folder), tensors]
        subprocess.run(command, check=True, env=environment())
    ways = [
        Contestant(name, [sys.executable, CHILD, way, folder, tensors])
        for name, way in WAYS.items()
    ]
    rows = interleave(ways, bench.runs)
    times = {name: ratio(rows, name, OURS, "inside_ms") for name in WAYS if name != OURS}
    return {
        "bytes": int(tensors) * (64 << 20),
        "rows": rows,
        "times_faster": times,
        "targets": [target(f"{TORCH} / ours", 2.0, times[TORCH], at_least=True)],
    }


if __name__ == "__main__":
    figure("resuming", measure)
