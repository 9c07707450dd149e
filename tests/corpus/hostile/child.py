"""Reads every file it is told of, by every verb, and writes down what the process did meanwhile.

Run as a process of its own: an audit hook cannot be taken out again. argv: output folder, files.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

MEMORY = 1 << 30  # bytes of address space: a bomb that goes off ends the process

# What the interpreter does to itself when modules are imported or objects are made.
HARMLESS = {"import", "marshal.loads", "object.__setattr__", "builtins.id", "sys._getframe"}
HARMLESS |= {"os.listdir", "os.scandir", "os.walk", "array.__new__"}

events = []
now = ""


def watch(event, args):
    if not now:
        return
    if event == "open":
        events.append((now, event, str(args[0]), args[2] if isinstance(args[2], int) else 0))
    elif event == "ctypes.dlopen" and args[0] is None:
        return  # the C library that is loaded already
    elif event in ("exec", "compile"):
        name = args[0].co_filename if event == "exec" else str(args[1])
        events.append((now, event, name, 0))
    elif event not in HARMLESS:
        events.append((now, event, repr(args)[:200], 0))


def attempt(work):
    from tensorkeep.errors import TensorkeepError

    started = time.process_time()
    try:
        result = work()
    except TensorkeepError as error:
        result = type(error).__name__
    return [result, round(time.process_time() - started, 2)]


def main(out, targets):
    global now
    import tensorkeep as tk

    # One verb shows what the limits of every day cost; the others need not wait as long.
    limits = tk.Limits(max_expansion=50_000)
    results = {}
    for target in targets:
        now = target
        path, name = Path(target), target.replace("/", "_")
        results[target] = {
            "scan": attempt(lambda path=path: tk.scan(path).verdict),
            "deep": attempt(lambda path=path: deep(tk.scan(path, deep=True, limits=limits))),
            "inspect": attempt(lambda path=path: len(tk.inspect(path, limits=limits).tensors)),
            "verify": attempt(lambda path=path: tk.verify(path, limits=limits).ok),
            "convert": attempt(
                lambda path=path, name=name: convert(tk, path, Path(out, name), limits)
            ),
        }
        now = ""
    report = {"results": results, "events": events, "modules": sorted(sys.modules)}
    (Path(out) / "report.json").write_text(json.dumps(report))


def deep(report):
    return [report.verdict, sorted({found.rule for found in report.findings})]


def convert(tk, path, to, limits):
    to = to.with_name(to.name + ".safetensors")
    tk.convert(path, to, section="all", drop_unsupported=True, limits=limits)
    return "written"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.addaudithook(watch)
    main(sys.argv[1], sys.argv[2:])
