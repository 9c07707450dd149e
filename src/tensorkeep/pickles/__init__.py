"""What a pickle says, never what it does.

`run` follows a pickle program with the stack semantics of CPython's own unpickler and records,
instead of doing it, whatever the program would do. Formats give meaning to the few calls that
mean something to them, the scanner judges the rest. Nothing here imports, calls or executes
anything that a file names, and nothing here knows what wrote the file.
"""

from __future__ import annotations

from tensorkeep.pickles.describe import describe
from tensorkeep.pickles.machine import load, run
from tensorkeep.pickles.values import (
    Call,
    Effect,
    Extension,
    Global,
    Import,
    Node,
    Persistent,
    Program,
    Reads,
    Resolve,
)

__all__ = [
    "Call",
    "Effect",
    "Extension",
    "Global",
    "Import",
    "Node",
    "Persistent",
    "Program",
    "Reads",
    "Resolve",
    "describe",
    "load",
    "run",
]
