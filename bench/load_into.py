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

import files
from common import (
    HERE,
    MOST_RUNS,
    Bench,
    Contestant,
    environment,
    figure,
    interleave,
    ratio,
    row_of,
    target,
)

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
LAYER = "empty_weights, load_into(mmap), one layer used"
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
    runs = min(bench.runs, MOST_RUNS)
    rows = interleave(ways, runs)
    layer = _layer(bench, runs)
    mine = row_of(rows, OURS)
    times = {name: ratio(rows, name, OURS, "inside_ms") for name in WAYS if name != OURS}
    return {
        "bytes": path.stat().st_size,
        "rows": rows,
        "times_faster": times,
        "layer": layer,
        "targets": [
            target(
                "one layer of 40 GB: bytes touched / its bytes",
                1.1,
                round(layer["touched_mb"] / layer["layer_mb"], 3),
            ),
            target("load_into(mmap) of a billion parameters: ms", 200, mine["load_ms"]),
            target(f"{DEFAULT} / ours", 20, times[DEFAULT], at_least=True),
        ],
    }


def _layer(bench: Bench, runs: int) -> dict[str, Any]:
    """A mapped model of 40 GB of which one layer is used: what of the file is then in memory."""
    path = files.sparse(bench, 40)
    command = [sys.executable, HERE / "layer_child.py", path, files.width(bench, 40)]
    return {"bytes": path.stat().st_size, **interleave([Contestant(LAYER, command)], runs)[0]}


def _contestant(name: str, way: str, path: Path, layers: str, *more: str) -> Contestant:
    return Contestant(name, [sys.executable, CHILD, way, path, layers, *more])


if __name__ == "__main__":
    figure("load_into", measure)
