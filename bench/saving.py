"""A training checkpoint of 2 GB: how long the step waits, and how long until it is durable.

float32, a fresh process for each run, one after the other in turn, each after three saves of its
own. `stall_ms`: until the training may go on; `durable_ms`: until files and folders are synced. The
older checkpoint is deleted in each way; tensorkeep reads the new one back before it does so, and
digests every tensor, which nobody else does.
"""

from __future__ import annotations

import shutil
import sys
from typing import Any

from common import HERE, Bench, Contestant, figure, interleave, ratio, row_of, target

CHILD = HERE / "saving_child.py"
OURS, COPY = "tk.Run.save", "one copy in memory"
WAYS = {
    OURS: "ours",
    "torch.save, fsync": "torch_save",
    "DCP save, synced": "dcp",
    "DCP async_save, synced": "dcp_async",
    COPY: "copy",
}
DURABLE = ("torch.save, fsync", "DCP save, synced", "DCP async_save, synced")


def measure(bench: Bench) -> dict[str, Any]:
    """All ways in turn."""
    tensors = str(bench.scaled(32))
    folder = bench.folder / "saving"

    def tidy() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    ways = [
        Contestant(name, [sys.executable, CHILD, way, folder, tensors], prepare=tidy, tidy=tidy)
        for name, way in WAYS.items()
    ]
    rows = interleave(ways, bench.runs)
    stall = ratio(rows, OURS, COPY, "stall_ms")
    against = ratio(rows, "DCP async_save, synced", OURS, "stall_ms")
    times = {name: ratio(rows, name, OURS, "durable_ms") for name in DURABLE}
    return {
        "bytes": int(tensors) * (64 << 20),
        "rows": rows,
        "stall_ms": row_of(rows, OURS)["stall_ms"],
        "times_faster": times,
        "targets": [
            target("stall of a save / one copy in memory", 1.2, stall),
            target("stall of DCP async_save / ours", 1.0, against, at_least=True),
            target("torch.save and fsync / ours, durable", 1.5, times[DURABLE[0]], at_least=True),
            target("DCP and fsync / ours, durable", 1.5, times[DURABLE[1]], at_least=True),
        ],
    }


if __name__ == "__main__":
    figure("saving", measure)
