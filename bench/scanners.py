"""Our scan and the other scanners on the same files: what is flagged, cried wolf at, not read.

Every scanner is used as its own documentation says: its verdict on a file is its exit code, and
where the documentation has one for "nothing was scanned" or the output says so, that is counted
as such. A file that a scanner refuses, skips or does not end with is neither flagged nor clean.
Only totals are written down.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import files
import samples
from common import (
    HERE,
    Bench,
    Contestant,
    environment,
    figure,
    interleave,
    run_child,
    target,
    tensorkeep,
)

import peers

OURS = "tensorkeep"
FILE_LIMIT_S, FILE_LIMIT_MB = 10.0, 4096
FOLDER_LIMIT_S = 90.0
ANY_EXIT = tuple(range(-64, 256))
TIMED = 8  # files of each kind that are timed as whole processes
SMALL = 300

# What its documentation says of exit codes; what is in no table, and whatever was stopped, is
# "not read". picklescan and modelaudit end with 0 too where they have scanned nothing.
CODES = {
    OURS: {0: "clean", 1: "flagged"},
    "picklescan": {0: "clean", 1: "flagged"},
    "fickling": {0: "clean", 1: "flagged"},
    "modelscan": {0: "clean", 1: "flagged"},
    "modelaudit": {0: "clean", 1: "flagged"},
}
NOTHING_SCANNED = {
    "picklescan": "Scanned files: 0\n",
    "modelscan": "Total Scanned: 0",
    "modelaudit": '"files_scanned": 0',
    "fickling": "nothing in it\n",
}


def ours() -> peers.Peer:
    """The command of this checkout, in the form of a peer."""
    from importlib.metadata import version

    command = tuple(map(str, tensorkeep("scan")))
    return peers.Peer(
        OURS, version("tensorkeep"), command, "tensorkeep.cli:main", ("scan",), sys.executable
    )


def verdicts(bench: Bench, peer: peers.Peer, found: dict[str, Path]) -> dict[str, str]:
    """What it says of each: "clean", "flagged" or "not read"."""
    questions = [json.dumps([*peer.arguments, str(path)]) for path in found.values()]
    answers: list[list[Any]] = []
    while len(answers) < len(questions):
        fresh = _asked(bench, peer, questions[len(answers) :])
        # A file that took the asking process with it is one that the scanner did not end with.
        answers += fresh or [[None, ""]]
    return {
        name: verdict(peer.name, code, said)
        for name, (code, said) in zip(found, answers, strict=True)
    }


def _asked(bench: Bench, peer: peers.Peer, questions: list[str]) -> list[list[Any]]:
    """The answers to as many of the questions, from the first on, as there are any."""
    warming = json.dumps([*peer.arguments, str(HERE.parent / "examples" / "digits.pth")])
    # -P: nothing of this folder shall be imported instead of what the scanner wants.
    command = [peer.python, "-P", str(HERE / "judging.py"), peer.entry]
    command += [str(FILE_LIMIT_S), str(FILE_LIMIT_MB)]
    done = subprocess.run(
        command,
        cwd=bench.folder,
        input="\n".join([warming, *questions]),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if not done.stdout and "Traceback" in done.stderr:
        raise RuntimeError(f"{peer.name}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines(keepends=True) if line[-1] == "\n"]


def verdict(name: str, code: int | None, said: str) -> str:
    """From its exit code and its own count of what it looked at."""
    word = CODES[name].get(code, "not read") if code is not None else "not read"
    empty = NOTHING_SCANNED.get(name)
    return "not read" if word == "clean" and empty and empty in said else word


def spread(found: dict[str, Path]) -> list[Path]:
    """Some of them, evenly."""
    paths = list(found.values())
    return paths[:: max(1, len(paths) // TIMED)][:TIMED]


def timed(peer: peers.Peer, paths: list[Path]) -> dict[str, Any]:
    """Whole processes, from start to exit, one after the other."""
    runs = []
    for path in paths:
        command = [*peer.command, path]
        runs.append(
            run_child(Contestant(peer.name, command, accept=ANY_EXIT, limit_s=FILE_LIMIT_S))
        )
    print(f"  {peer.name}: {median(run.wall_ms for run in runs):.0f} ms a file", file=sys.stderr)
    return {
        "files": len(runs),
        "median_ms": round(median(run.wall_ms for run in runs), 1),
        "slowest_ms": round(max(run.wall_ms for run in runs), 1),
        "peak_mb": round(max(run.peak_mb for run in runs), 1),
    }


def at_once(peer: peers.Peer, folder: Path) -> dict[str, Any] | None:
    """All files in one run; None where its command takes no folder."""
    if not peer.folders:
        return None
    run = run_child(
        Contestant(peer.name, [*peer.command, folder], accept=ANY_EXIT, limit_s=FOLDER_LIMIT_S)
    )
    print(f"  {peer.name}: all at once {run.wall_ms / 1e3:.1f} s", file=sys.stderr)
    stopped = {"stopped_after_s": FOLDER_LIMIT_S} if run.exit is None else {}
    return {"wall_ms": round(run.wall_ms, 1), "peak_mb": round(run.peak_mb, 1), **stopped}


def one_row(
    peer: peers.Peer, said: dict[str, dict[str, str]], bench: Bench, found: dict[str, dict]
) -> dict[str, Any]:
    """Everything about one scanner that goes into the table."""
    counts = {kind: Counter(words.values()) for kind, words in said.items()}
    return {
        "name": peer.name,
        "version": peer.version,
        **{
            kind: {word: counts[kind][word] for word in ("flagged", "clean", "not read")}
            for kind in counts
        },
        "one_by_one": timed(peer, [path for kind in found.values() for path in spread(kind)]),
        "at_once": at_once(peer, bench.folder / "samples"),
    }


def measure(bench: Bench) -> dict[str, Any]:
    """The table, and the figures of the scan alone."""
    asked = [peers.install(name, bench.peers) for name in peers.COMMANDS]
    there = [ours(), *(peer for peer in asked if not peer.missing)]
    found = {"hostile": samples.hostile(bench), "honest": samples.honest(bench)}
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            (peer.name, kind): pool.submit(verdicts, bench, peer, paths)
            for peer in there
            for kind, paths in found.items()
        }
        said = {key: job.result() for key, job in jobs.items()}
    rows = [
        one_row(peer, {kind: said[peer.name, kind] for kind in found}, bench, found)
        for peer in there
    ]
    rows[0]["hostile"]["clean with --deep"] = _still_clean(bench, said[OURS, "hostile"], found)
    _tell(said)
    cases = alone(bench)
    mine = rows[0]
    return {
        "peers": {peer.name: peer.version or peer.missing for peer in asked},
        "limit_s": FILE_LIMIT_S,
        "files": {kind: len(paths) for kind, paths in found.items()},
        "rows": rows,
        "cases": cases,
        "targets": [
            target(
                "hostile files called clean with --deep", 0, mine["hostile"]["clean with --deep"]
            ),
            target("honest files flagged", 0, mine["honest"]["flagged"]),
            target("honest files not read", 0, mine["honest"]["not read"]),
            target("100 GB: MB at the peak", 50, cases[SPARSE]["rows"][0]["peak_mb"]),
            *(
                target(f"{name}: seconds", 10, round(cases[name]["rows"][0]["wall_ms"] / 1e3, 2))
                for name in (BOMB, GZIPPED)
            ),
        ],
    }


def _still_clean(bench: Bench, said: dict[str, str], found: dict[str, dict[str, Path]]) -> int:
    """How many of the hostile files that our scan calls clean it calls so with --deep, too."""
    left = {name: found["hostile"][name] for name, word in said.items() if word == "clean"}
    deep = replace(ours(), arguments=("scan", "--deep"))
    return sum(word == "clean" for word in verdicts(bench, deep, left).values())


def _tell(said: dict[tuple[str, str], dict[str, str]]) -> None:
    """Where our own scan is wrong, by name: for whoever runs this, and for no table."""
    for kind, wrong in (("hostile", ("clean",)), ("honest", ("flagged", "not read"))):
        for name, word in said[OURS, kind].items():
            if word in wrong:
                print(f"  OURS: {kind} {name}: {word}", file=sys.stderr)


SPARSE, BOMB, GZIPPED = "`scan` a sparse `.pth`", "`scan` a bomb in a zip", "`scan` a bomb in gzip"


def alone(bench: Bench) -> dict[str, Any]:
    """What is measured of our scan only."""
    hundred, many = files.sparse(bench, 100), files.many(bench, bench.scaled(20_000))
    bomb = samples.made(bench.folder / "bomb.pth", samples.BOMB)
    gzipped = samples.made(bench.folder / "bomb.pkl.gz", samples.GZIPPED)
    small = samples.small_files(bench, SMALL)
    ways: dict[str, tuple[str | Path, ...]] = {
        SPARSE: ("scan", hundred),
        "`inspect` it": ("inspect", hundred),
        "`inspect` 20,000 tensors": ("inspect", many),
        BOMB: ("scan", bomb),
        GZIPPED: ("scan", gzipped),
        f"`scan` a folder of {SMALL} files, one process": ("scan", "--jobs", "1", small),
        "the same, as many processes as cores": ("scan", small),
    }
    contestants = [
        Contestant(name, tensorkeep(*words), accept=(0, 1, 2), limit_s=60.0)
        for name, words in ways.items()
    ]
    rows = interleave(contestants, 3)
    sizes = {SPARSE: hundred, BOMB: bomb, GZIPPED: gzipped, "`inspect` 20,000 tensors": many}
    return {
        row["name"]: {
            **({"bytes": sizes[row["name"]].stat().st_size} if row["name"] in sizes else {}),
            "rows": [row],
        }
        for row in rows
    }


if __name__ == "__main__":
    figure("scanners", measure)
