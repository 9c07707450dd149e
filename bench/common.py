"""What every figure shares: children measured one by one, in turn, and the machine's facts.

A child's wall time runs from its start to its end; CPU time, peak resident memory and the bytes
that it read from the device come from wait4 (ru_utime + ru_stime, ru_maxrss, ru_inblock). For the
cold figures the page cache of the file, and of nothing else, is dropped by posix_fadvise DONTNEED.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
STARTER = HERE / "starter.py"
LIBRARIES = ("tensorkeep", "torch", "safetensors", "numpy", "click")
MB = 1e6
# Rounds of figures whose runs take seconds: all of them together shall take twenty minutes.
MOST_RUNS = 3


def nothing() -> None:
    """What most contestants need done before and after a run."""


@dataclass
class Contestant:
    """One way to do a job. `prepare` and `tidy` run before and after each run, unmeasured.

    Its last line on stdout, where that is a JSON object, is kept: times taken inside the process.
    """

    name: str
    command: Sequence[str | Path]
    prepare: Callable[[], None] = nothing
    tidy: Callable[[], None] = nothing
    accept: tuple[int, ...] = (0,)
    limit_s: float = 600.0


@dataclass
class Run:
    """What one child took. `inside` is what it said about itself."""

    wall_ms: float
    cpu_ms: float
    peak_mb: float
    read_kb: float
    exit: int | None
    inside: dict[str, float] = field(default_factory=dict)


@dataclass
class Bench:
    """What the command line asked for: sizes, rounds, and a folder for files that may be large."""

    folder: Path
    peers: Path
    scale: float
    runs: int

    def scaled(self, count: int) -> int:
        """`count` of something, fewer in a rehearsal."""
        return max(4, round(count * self.scale))


def environment() -> dict[str, str]:
    """Without the switches that slow Python's start down, and without anybody's telemetry."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTHON") or key == "PYTHONPATH"
    }
    silent = ("DO_NOT_TRACK", "NO_ANALYTICS", "PROMPTFOO_DISABLE_TELEMETRY")
    return {**kept, **dict.fromkeys(silent, "1"), "HF_HUB_OFFLINE": "1"}


def run_child(contestant: Contestant) -> Run:
    """Start it, wait for its end, and say what it took. Raises RuntimeError if it failed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as talk:
        took = _start(contestant, out, talk)
        if took["exit"] is not None and took["exit"] not in contestant.accept:
            talk.seek(0)
            said = talk.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{contestant.name}: exit {took['exit']}: {said}")
        return Run(
            wall_ms=took["wall_s"] * 1e3,
            cpu_ms=took["cpu_s"] * 1e3,
            peak_mb=took["peak_kib"] * 1024 / MB,
            read_kb=took["blocks_read"] * 512 / 1e3,
            exit=took["exit"],
            inside=_inside(out),
        )


def _start(contestant: Contestant, out: Any, talk: Any) -> dict[str, Any]:
    answer, theirs = os.pipe()
    limit = str(contestant.limit_s)
    command = [sys.executable, "-I", "-S", STARTER, str(theirs), limit, *contestant.command]
    with os.fdopen(answer, "rb") as said:
        try:
            subprocess.run(
                [str(word) for word in command],
                check=True,
                stdout=out,
                stderr=talk,
                env=environment(),
                pass_fds=[theirs],
            )
        finally:
            os.close(theirs)
        took: dict[str, Any] = json.loads(said.read())
        return took


def _inside(out: Any) -> dict[str, float]:
    out.seek(max(0, out.seek(0, os.SEEK_END) - 4096))
    lines = out.read().decode(errors="replace").strip().splitlines()
    if not lines or not lines[-1].startswith('{"inside_ms"'):
        return {}
    found: dict[str, float] = json.loads(lines[-1])
    return found


def interleave(contestants: Sequence[Contestant], runs: int, *, slow_s: float = 1e9) -> list[dict]:
    """Every contestant once per round, the order turned by one each round; a row for each.

    A first round fills the caches and is thrown away, except that who takes longer than `slow_s`
    in it is not run again: that run is its result.
    """
    taken: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
    racing = []
    for contestant in contestants:
        first = _once(contestant)
        if first.wall_ms > slow_s * 1e3:
            taken[contestant.name].append(first)
        else:
            racing.append(contestant)
    for turn in range(runs):
        shift = turn % max(1, len(racing))
        for contestant in racing[shift:] + racing[:shift]:
            taken[contestant.name].append(_once(contestant))
    return [summary(contestant, taken[contestant.name]) for contestant in contestants]


def _once(contestant: Contestant) -> Run:
    contestant.prepare()
    try:
        run = run_child(contestant)
    finally:
        contestant.tidy()
    print(f"  {contestant.name}: {run.wall_ms:.0f} ms, {run.peak_mb:.0f} MB", file=sys.stderr)
    return run


def summary(contestant: Contestant, runs: list[Run]) -> dict[str, Any]:
    """Medians over the runs, and every wall time as it came."""
    row: dict[str, Any] = {"name": contestant.name, "runs": len(runs)}
    for key in ("wall_ms", "cpu_ms", "peak_mb", "read_kb"):
        row[key] = round(median(getattr(run, key) for run in runs), 1)
    row["all_wall_ms"] = [round(run.wall_ms, 1) for run in runs]
    for key in runs[0].inside:
        row[key] = round(median(run.inside[key] for run in runs), 3)
    if any(run.exit is None for run in runs):
        row["stopped_after_s"] = contestant.limit_s
    elif runs[-1].exit:
        row["exit"] = runs[-1].exit
    return row


def ratio(rows: list[dict], slow: str, fast: str, key: str = "wall_ms") -> float:
    """How many times `slow` is `fast`: one median over the other, so that a reader can check it."""
    return round(row_of(rows, slow)[key] / row_of(rows, fast)[key], 3)


def row_of(rows: list[dict], name: str) -> dict[str, Any]:
    """The row of one contestant."""
    return next(row for row in rows if row["name"] == name)


def target(what: str, wanted: float, got: float, *, at_least: bool = False) -> dict[str, Any]:
    """A figure that was set beforehand, and whether it was reached."""
    met = got >= wanted if at_least else got <= wanted
    bound = "at least" if at_least else "at most"
    return {"what": what, "bound": bound, "wanted": wanted, "got": got, "met": met}


def drop_cache(path: Path) -> Callable[[], None]:
    """Something that lets go of the kernel's copy of `path`, which must be clean for that."""

    def drop() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    return drop


def removal(path: Path) -> Callable[[], None]:
    """Something that removes what a run wrote: what it left dirty must not slow the next."""
    return lambda: path.unlink(missing_ok=True)


def python(code: str, *arguments: str | Path) -> list[str | Path]:
    """A fresh Python that runs `code`."""
    return [sys.executable, "-c", code, *arguments]


def tensorkeep(*arguments: str | Path) -> list[str | Path]:
    """The command as a user has it."""
    script = Path(sys.executable).parent / "tensorkeep"
    start = [script] if script.exists() else [sys.executable, "-m", "tensorkeep"]
    return [*start, *arguments]


def machine(folder: Path) -> dict[str, Any]:
    """What the figures were taken on. Nothing that names the machine or a place on it."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release().split("-")[0],
        "file_system": _file_system(folder),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    kinds = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        kinds[place] = kind
    return next(kinds[str(at)] for at in (folder, *folder.parents) if str(at) in kinds)


def figure(name: str, measure: Callable[[Bench], dict[str, Any]]) -> None:
    """The `main` of a figure: measure, and write `results/NAME.json` (or into --out)."""
    asked = arguments().parse_args()
    folder = asked.files or Path(tempfile.mkdtemp(prefix="tensorkeep-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder.resolve(), asked.peers or folder / "peers", asked.scale, asked.runs)
    began = os.getloadavg()[0]
    try:
        found = measure(bench)
    finally:
        if asked.files is None:
            shutil.rmtree(folder)
    result = {
        "schema": 1,
        "figure": name,
        "scale": asked.scale,
        "machine": machine(bench.folder.parent),
        "load_average": {"start": round(began, 2), "end": round(os.getloadavg()[0], 2)},
        **found,
    }
    save(result, where=asked.out, whole=asked.scale == 1)


def save(result: dict[str, Any], *, where: Path | None, whole: bool) -> None:
    """A rehearsal is printed only, unless a folder is named: it must not look like a result."""
    text = json.dumps(result, indent=1) + "\n"
    if where is None and not whole:
        print(text)
        return
    where = where or RESULTS
    where.mkdir(parents=True, exist_ok=True)
    (where / f"{result['figure']}.json").write_text(text)
    for row in result.get("targets", []):
        state = "met   " if row["met"] else "MISSED"
        print(f"{state} {row['what']}: {row['got']} ({row['bound']} {row['wanted']})")


def arguments() -> argparse.ArgumentParser:
    """The options that all figures have."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="size of the files, 1 is whole")
    parser.add_argument("--runs", type=int, default=5, help="rounds, after one to warm up")
    parser.add_argument("--files", type=Path, help="a folder for the files, kept afterwards")
    parser.add_argument("--peers", type=Path, help="a folder for the scanners' environments")
    parser.add_argument("--out", type=Path, help="where results go; bench/results by default")
    return parser
