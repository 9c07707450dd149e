"""`scan` of 20,000 small tensors and of a 2 GB checkpoint, beside the other scanners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import files
from common import Bench, Contestant, figure, interleave, ratio, row_of, target, tensorkeep

import peers

OURS, INSPECT = "tensorkeep scan", "tensorkeep inspect"
LIMIT_S = 60.0
# Who needs longer than this is ten times slower whatever the noise: one run must do.
SLOW_S = 8.0
# They end with other codes where they call a benign file something else than safe.
ANY_EXIT = tuple(range(256))


def ways(path: Path, others: list[peers.Peer]) -> list[Contestant]:
    """Ours, `inspect` of the same file, and every scanner that is there."""
    found = [
        Contestant(OURS, tensorkeep("scan", path)),
        Contestant(INSPECT, tensorkeep("inspect", path)),
    ]
    for peer in others:
        found.append(Contestant(peer.name, [*peer.command, path], accept=ANY_EXIT, limit_s=LIMIT_S))
    return found


def measure(bench: Bench) -> dict[str, Any]:
    """Both files, all scanners."""
    asked = [peers.install(name, bench.peers) for name in peers.COMMANDS]
    there = [peer for peer in asked if not peer.missing]
    sources = {
        "20,000 tensors": files.many(bench, bench.scaled(20_000)),
        "2 GB": files.large(bench),
    }
    cases = {}
    for name, path in sources.items():
        rows = interleave(ways(path, there), bench.runs, slow_s=SLOW_S)
        cases[name] = {
            "bytes": path.stat().st_size,
            "rows": rows,
            "times_inspect": ratio(rows, OURS, INSPECT),
            "times_faster": {peer.name: ratio(rows, peer.name, OURS) for peer in there},
        }
    seconds = row_of(cases["20,000 tensors"]["rows"], OURS)["wall_ms"] / 1e3
    return {
        "peers": {peer.name: peer.version or peer.missing for peer in asked},
        "limit_s": LIMIT_S,
        "cases": cases,
        "targets": [
            target("20,000 tensors: seconds", 1.2, round(seconds, 3)),
            target("2 GB: scan / inspect", 1.5, cases["2 GB"]["times_inspect"]),
        ],
    }


if __name__ == "__main__":
    figure("scanning", measure)
