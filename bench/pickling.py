"""The pickle machine on the data.pkl of 20,000 tensors; times taken inside the process."""

from __future__ import annotations

from typing import Any

import files
from common import Bench, Contestant, figure, interleave, python, ratio, row_of, target

INSIDE = """
import json, sys, time
def memory(what):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024
{before}
start, began = memory("VmRSS"), time.perf_counter()
{job}
took = time.perf_counter() - began
grown = memory("VmHWM") - start
print(json.dumps({{"inside_ms": took * 1e3, "grown_mb": grown / 1e6}}))
"""
OURS = (
    "from tensorkeep.pickles import run\ndata = open(sys.argv[1], 'rb').read()",
    "program = run(data)\nassert program.error is None, program.error",
)
# Everything that the file names becomes an object that does nothing.
INERT = (
    """
import io, pickle
class Inert(dict):
    def __init__(self, *values):
        pass
class Reader(pickle.Unpickler):
    def find_class(self, module, name):
        return Inert
    def persistent_load(self, pid):
        return pid
data = open(sys.argv[1], 'rb').read()
""",
    "value = Reader(io.BytesIO(data)).load()",
)
PYTHON = ("import pickle\n" + INERT[0].replace("pickle.Unpickler", "pickle._Unpickler"), INERT[1])
TORCH = ("import torch", "value = torch.load(sys.argv[1], map_location='meta')")

NAMES = {
    "tensorkeep.pickles.run": OURS,
    "pickle.Unpickler, inert": INERT,
    "pickle._Unpickler (Python), inert": PYTHON,
    "torch.load(map_location='meta')": TORCH,
}


def measure(bench: Bench) -> dict[str, Any]:
    """One file, four readers."""
    count = bench.scaled(20_000)
    checkpoint = files.many(bench, count)
    program = files.pickle_of(checkpoint)
    contestants = []
    for name, (before, job) in NAMES.items():
        path = checkpoint if name.startswith("torch") else program
        code = INSIDE.format(before=before, job=job)
        contestants.append(Contestant(name, python(code, path)))
    rows = interleave(contestants, bench.runs)
    ours, *others = NAMES
    row = row_of(rows, ours)
    each = round(row["grown_mb"] * 1e3 / count, 3)
    return {
        "bytes": program.stat().st_size,
        "tensors": count,
        "rows": rows,
        "kb_per_tensor": each,
        "times_faster": {name: ratio(rows, name, ours, "inside_ms") for name in others},
        "targets": [
            target("20,000 tensors: seconds", 0.8, round(row["inside_ms"] / 1e3, 3)),
            target("kB of memory per tensor", 3, each),
        ],
    }


if __name__ == "__main__":
    figure("pickling", measure)
