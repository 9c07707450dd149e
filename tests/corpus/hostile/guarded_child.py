"""Loads every file it is told of under a guard, and writes down what the process did meanwhile.

Run as a process of its own: an audit hook cannot be taken out again. argv: honest file, files,
--once, files that are read by one call only.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "oracle"))
from watching import Watch  # noqa: E402


def attempt(call, path):
    started = time.process_time()
    try:
        value = call(path)
        repr(value)  # what a program does with what it does not know
        done = "loaded"
    except Exception as error:
        done = type(error).__name__
    return [done, round(time.process_time() - started, 2)]


def files(target):
    path = Path(target)
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def main(honest, targets, once):
    import numpy  # noqa: F401
    import torch
    import torch.distributed.checkpoint
    import torch.package

    import tensorkeep as tk

    calls = {
        "load": lambda path: torch.load(path, weights_only=False),
        "mapped": lambda path: torch.load(path, weights_only=False, mmap=True),
        "script": torch.jit.load,
        "package": torch.package.PackageImporter,
    }
    watch = Watch()
    watch.install()
    warnings.simplefilter("ignore")
    report = {}
    with tk.guard() as guarded:
        for call in calls.values():
            attempt(call, honest)  # what is imported when it is needed first
        for path in [path for target in [*targets, *once] for path in files(target)]:
            watch.start(str(path))
            # The others read zips; what costs time costs it once.
            zipped = path.read_bytes()[:2] == b"PK" and path.stat().st_size < 100_000
            named = calls if zipped and str(path) not in once else ["load"]
            results = {name: attempt(calls[name], path) for name in named}
            watch.stop()
            report[str(path)] = {
                "results": results,
                "events": [list(map(str, event)) for event in watch.events],
                "classes": list(map(str, watch.classes)),
            }
            watch.events.clear()
            watch.classes.clear()
        loads = len(guarded.log.events)
    print(json.dumps({"files": report, "loads": loads}))


if __name__ == "__main__":
    at = sys.argv.index("--once")
    main(sys.argv[1], sys.argv[2:at], sys.argv[at + 1 :])
