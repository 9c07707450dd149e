"""What the searches begin with: the sample files of the corpus, and small generated ones."""

from __future__ import annotations

import importlib.util
import io
import pickle
import random
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parent.parent
LONGEST = 16 << 10  # bytes: a longer seed makes every mutation of it slow


@cache
def sample_files() -> tuple[bytes, ...]:
    """Every small file of the corpus, hostile ones too: they are read and never loaded."""
    paths = sorted(path for path in (TESTS / "corpus").rglob("*") if path.is_file())
    named = (".json", ".py", ".md", ".pyc")
    small = [p for p in paths if p.suffix not in named and 0 < p.stat().st_size <= LONGEST]
    return tuple(path.read_bytes() for path in small)


def samples(fits: Callable[[bytes], bool]) -> list[bytes]:
    """Those that are of one kind, and no bombs: the search begins where it is fast."""
    return [data for data in sample_files() if fits(data) and _unpacked(data) <= 4 * LONGEST]


def _unpacked(data: bytes) -> int:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return len(data)


def members(data: bytes) -> Iterator[bytes]:
    """The members of a zip, as far as the standard library can read it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.file_size <= LONGEST:
                    yield archive.read(info)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError):
        return


def pickles_inside() -> list[bytes]:
    """The pickles of all samples, and plain values at every protocol."""
    found = {data for data in sample_files() if data[:1] == b"\x80"}
    for data in samples(lambda data: data[:2] == b"PK"):
        found |= {member for member in members(data) if member[:1] == b"\x80"}
    found |= {pickle.dumps(value, proto) for value in _plain() for proto in range(6)}
    return sorted(found)


def programs(count: int) -> list[bytes]:
    """Programs of the generator that the differential tests use: every opcode is in them."""
    make = module("pickles/test_differential").program
    rng = random.Random(1)
    return [make(rng) for _ in range(count)]


def _plain() -> list[object]:
    cycle: list[object] = [1]
    cycle.append(cycle)
    shared = ("k", b"v")
    return [
        {"a": 1, "b": [2.5, None, True], "c": (1, 2, 3, 4), "d": "é" * 5},
        [-1, 255, 65536, -(2**31), 2**63, 2**200, 1e300, "x" * 300],
        [{1, 2}, frozenset("ab"), b"bytes" * 60, bytearray(b"array")],
        {"cycle": cycle, "shared": [shared, shared, {shared: shared}]},
        OrderedDict(weight=1, bias=2),
        [complex(1, 2), range(3), slice(1, 2), Ellipsis, int, len],
    ]


@cache
def module(name: str) -> ModuleType:
    """A file of tests/ as a module, by its path without the suffix."""
    path = TESTS / f"{name}.py"
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(name.replace("/", "_"), path)
        made = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = made  # dataclasses look themselves up there
        spec.loader.exec_module(made)
    finally:
        sys.path.remove(str(path.parent))
    return made
