"""Runs one target under atheris: coverage of tensorkeep's own code steers the search.

    python tests/fuzz/harness.py fuzz_zip FOLDER [flags of libFuzzer]

A target is a module of this folder with `one` (a function of bytes that raises where a promise is
broken), `seeds` (what the search begins with), and perhaps `mutate` and WORDS. Anything that
`one` raises is a failure: a target says itself where one of our errors may come. Each input has a
bound in processor time, the process one in address space.

FOLDER gets the corpus, the dictionary and what was found. With KEEP_GOING in the environment the
search goes on after a failure, which is kept once for each place in the code; without, the first
one ends it.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
MEMORY = 4 << 30  # bytes of address space: to allocate what a file merely claims must fail
SECONDS = 3.0  # of processor time for one input, under instrumentation
FLAGS = ("-max_len=4096", "-timeout=60", "-print_final_stats=1", "-detect_leaks=0")

Target = Callable[[bytes], None]


class TooSlow(Exception):
    """An input took longer than it may."""


def main() -> None:
    """Hand the process over to libFuzzer; it does not return."""
    import atheris

    name, folder, *flags = sys.argv[1:]
    place = Path(folder)
    with atheris.instrument_imports(include=["tensorkeep"]):
        _load_all()
        target = import_module(name)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    one = timed(target.one)
    if "KEEP_GOING" in os.environ:
        one = keeping(one, place / "found")
    mutate = {"custom_mutator": target.mutate} if hasattr(target, "mutate") else {}
    atheris.Setup([sys.argv[0], *prepare(target, place), *flags], one, **mutate)
    atheris.Fuzz()


def _load_all() -> None:
    """Every module of the core now: what is imported later would not be instrumented."""
    import tensorkeep

    rooms = pkgutil.walk_packages(tensorkeep.__path__, "tensorkeep.")
    for room in rooms:
        if not room.name.startswith(("tensorkeep.cli", "tensorkeep.testing", "tensorkeep.__main")):
            import_module(room.name)


def prepare(target: ModuleType, place: Path) -> list[str]:
    """Write corpus and dictionary unless they are there; the arguments that name them."""
    corpus, words = place / "corpus", place / "words"
    if not corpus.exists():
        corpus.mkdir(parents=True)
        for seed in target.seeds():
            (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
        words.write_text(_dictionary(getattr(target, "WORDS", (b"PK",))))
    return [*FLAGS, f"-dict={words}", f"-artifact_prefix={place}/", str(corpus)]


def _dictionary(words: Iterable[bytes]) -> str:
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
    return "".join(f'"{line}"\n' for line in lines)


def timed(one: Target) -> Target:
    """`one`, which fails too where it takes too long."""

    def within(data: bytes) -> None:
        began = time.thread_time()
        one(data)
        took = time.thread_time() - began
        if took > SECONDS:
            raise TooSlow(f"{len(data)} bytes took {took:.1f} s")

    return within


def keeping(one: Target, folder: Path) -> Target:
    """`one`, whose failures are written into `folder` instead of being raised."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {path.name for path in folder.iterdir()}

    def kept(data: bytes) -> None:
        try:
            one(data)
        except Exception as error:
            name = _signature(error)
            if name in known:
                return
            known.add(name)
            (folder / name).write_bytes(data)
            text = "".join(traceback.format_exception(error)[-12:])
            (folder / f"{name}.txt").write_text(text, errors="backslashreplace")

    return kept


def _signature(error: BaseException) -> str:
    """Two failures at the same place in the code are one finding."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename}:{frame.name}:{frame.lineno}"
    return f"{type(error).__name__}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


if __name__ == "__main__":
    # Targets and what they share are imported by their bare names.
    sys.path.insert(0, str(HERE))
    main()
