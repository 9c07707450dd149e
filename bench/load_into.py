"""A model of a billion parameters, from its class and a file to weights: ours beside torch's ways.

bfloat16, 2.1 GB, page cache warm, a fresh process for each run, one after the other in turn.
`inside_ms` is what it took to get from nothing to a model with its weights; `load_ms` the load
alone, behind the building. Imports are done and a small model was loaded before; memory is
conditioned as for `loading`. What only maps the file has read none of it yet: a last row for each
mapped way touches all weights once (`sum`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from common import HERE, Bench, Contestant, environment, figure, interleave, ratio, row_of, target

CHILD = HERE / "load_into_child.py"
OURS, DEFAULT = "empty_weights, load_into(mmap)", "build, torch.load, load_state_dict"
WAYS = {
    OURS: "ours_mapped",
    "empty_weights, load_into": "ours",
    "build, load_into": "ours_copied",
    DEFAULT: "torch_default",
    "build, torch.load(mmap), load_state_dict": "torch_mapped",
    "meta, torch.load(mmap), load_state_dict(assign)": "torch_assigned",
}
USED = {
    f"{OURS}, all weights used": "ours_mapped",
    "meta, torch.load(mmap), load_state_dict(assign), all weights used": "torch_assigned",
}


def measure(bench: Bench) -> dict[str, Any]:
    """All ways; then the mapped ones with every weight used once."""
    layers = str(bench.scaled(18))
    path = bench.folder / f"billion{layers}.pth"
    command = [sys.executable, str(CHILD), "make", str(path), layers]
    if not path.exists():
        subprocess.run(command, check=True, env=environment())
    ways = [_contestant(name, way, path, layers) for name, way in WAYS.items()]
    ways += [_contestant(name, way, path, layers, "use") for name, way in USED.items()]
    rows = interleave(ways, bench.runs)
    mine = row_of(rows, OURS)
    times = {name: ratio(rows, name, OURS, "inside_ms") for name in WAYS if name != OURS}
    return {
        "bytes": path.stat().st_size,
        "rows": rows,
        "times_faster": times,
        "targets": [
            target("load_into(mmap) of a billion parameters: ms", 200, mine["load_ms"]),
            target(f"{DEFAULT} / ours", 20, times[DEFAULT], at_least=True),
        ],
    }


def _contestant(name: str, way: str, path: Path, layers: str, *more: str) -> Contestant:
    return Contestant(name, [sys.executable, CHILD, way, path, layers, *more])


if __name__ == "__main__":
    figure("load_into", measure)
