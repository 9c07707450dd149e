"""`load` of 2 GB into private memory, of 20,000 small tensors, and of 20 GB mapped, side by side.

Times are taken inside fresh processes, after imports and after memory was conditioned (see
`loading_child.py`), the contestants in turn. `--peers` names a folder that holds, or gets, the
packages of the other loaders; one that cannot be installed is left out, and the result says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import files
from common import (
    HERE,
    MOST_RUNS,
    Bench,
    Contestant,
    environment,
    figure,
    interleave,
    ratio,
    target,
)

CHILD = HERE / "loading_child.py"
PACKAGES = ("fastsafetensors==0.5.0", "runai-model-streamer==0.17.0", "tensorizer==2.12.1")
# What they need beside torch and numpy.
NEEDED = (
    *("humanize", "redis", "hiredis", "boto3", "botocore", "jmespath", "s3transfer"),
    *("libnacl", "protobuf", "lz4"),
)
MODULES = {"fastsafetensors": "fastsafetensors", "runai": "runai_model_streamer"} | {
    "tensorizer": "tensorizer"
}
SMALL = "import sys, torch; torch.save({'a': torch.ones(64), 'b': torch.ones(64)}, sys.argv[1])"
TENSORIZED = """
import sys
sys.path.insert(0, sys.argv[3])
import torch
from tensorizer import TensorSerializer
writer = TensorSerializer(sys.argv[2])
writer.write_state_dict(torch.load(sys.argv[1], mmap=True))
writer.close()
"""
COUNT = 20_000
_PTH = ("ours", "torch_load")
_SAFE = ("ours", "safetensors_copied", "safetensors_pread")
_OTHERS = ("fastsafetensors", "runai", "tensorizer")


def measure(bench: Bench) -> dict[str, Any]:
    """Warm and cold 2 GB, many small tensors, and a mapping of 20 GB."""
    peers, missing = loaders(bench)
    large, many = files.large(bench), files.many(bench, bench.scaled(COUNT))
    runs = min(bench.runs, MOST_RUNS)
    _small(bench)
    peers = [way for way in peers if _works(bench, way, missing)]
    cases: dict[str, Any] = {}
    for name, path in (("2 GB", large), ("20,000 tensors", many)):
        ways = contestants(bench, path, [*_PTH, *_SAFE[1:], *peers])
        cases[name] = {"rows": interleave(ways, runs)}
    if _reads_directly(large):
        ways = contestants(bench, large, [*_PTH, "safetensors_pread", "dd"], "cold")
        cases["2 GB, cold"] = {"rows": interleave(ways, runs)}
    else:
        missing["2 GB, cold"] = "no direct reads on this file system"
    sparse = files.sparse(bench, 20)
    ways = contestants(bench, sparse, ["ours_mapped", "torch_mapped"])
    cases["20 GB, mapped"] = {"rows": interleave(ways, runs)}
    for case in cases.values():
        others = [row["name"] for row in case["rows"] if not row["name"].startswith("ours")]
        case["ours_for"] = {way: beside(way, case) for way in others}
        case["times_faster"] = {
            way: ratio(case["rows"], way, mine, "inside_ms")
            for way, mine in case["ours_for"].items()
        }
    return {
        "cases": cases,
        "loaders": list(PACKAGES),
        "missing": missing,
        "targets": targets(cases),
    }


def beside(way: str, case: dict[str, Any]) -> str:
    """The row of ours on the same format."""
    mine = [row["name"] for row in case["rows"] if row["name"].startswith("ours")]
    return mine[0] if way.startswith(("torch", "dd")) else mine[-1]


def _packages(bench: Bench) -> Path:
    return bench.peers / "loaders"


def contestants(bench: Bench, path: Path, ways: list[str], *more: str) -> list[Contestant]:
    """Ours twice, once for each format, and the others on the file that they read."""
    found = []
    for way in ways:
        try:
            file = _file(bench, path, way)
        except subprocess.CalledProcessError:
            continue  # a format that cannot hold so many tensors
        command = [sys.executable, CHILD, way, file, _packages(bench), *more]
        found.append(Contestant(way, command))
        if way == "ours":
            other = _file(bench, path, "safetensors_copied")
            command = [sys.executable, CHILD, way, other, _packages(bench), *more]
            found.append(Contestant("ours, safetensors", command))
    return found


def _file(bench: Bench, path: Path, way: str) -> Path:
    """`path` in the format that the way reads."""
    if way.startswith(("ours", "torch", "dd")):
        return path
    suffix = ".tensors" if way == "tensorizer" else ".safetensors"
    made = path.with_suffix(suffix)
    if not made.exists():
        code = TENSORIZED if way == "tensorizer" else files.CONVERTED
        _run(code, path, made, _packages(bench))
    return made


def _works(bench: Bench, way: str, missing: dict[str, str]) -> bool:
    file = bench.folder / f"small.{'tensors' if way == 'tensorizer' else 'safetensors'}"
    try:
        command = [sys.executable, CHILD, way, file, _packages(bench)]
        subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=60)
    except subprocess.SubprocessError:
        missing[way] = "fails on a small file"
        return False
    return True


def _reads_directly(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def _small(bench: Bench) -> None:
    path = bench.folder / "small.pth"
    _run(SMALL, path)
    for way in ("safetensors_copied", "tensorizer"):
        try:
            _file(bench, path, way)
        except subprocess.CalledProcessError:
            continue  # it is not installed: nobody will ask for the file


def _run(code: str, *arguments: Path) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    subprocess.run(command, check=True, env=environment(), stderr=subprocess.DEVNULL)


def loaders(bench: Bench) -> tuple[list[str], dict[str, str]]:
    """The other loaders that can be used, and why others cannot."""
    folder = _packages(bench)
    if not folder.exists():
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        command += [str(folder), "-c", str(HERE.parent / "constraints.txt")]
        subprocess.run([*command, *PACKAGES, *NEEDED], check=False)
    found, missing = [], {}
    for way in _OTHERS:
        try:
            code = f"import sys; sys.path.insert(0, sys.argv[1]); import {MODULES[way]}"
            _run(code, folder)
            found.append(way)
        except subprocess.CalledProcessError:
            missing[way] = "could not be installed or imported"
    return found, missing


def targets(cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for."""
    rows = []
    warm, many = cases["2 GB"]["times_faster"], cases["20,000 tensors"]["times_faster"]
    for way in ("torch_load", "safetensors_copied", "safetensors_pread"):
        rows.append(target(f"2 GB: {way} / ours", 3, warm[way], at_least=True))
        rows.append(target(f"20,000 tensors: {way} / ours", 2, many[way], at_least=True))
    others = [warm[way] for way in _OTHERS if way in warm]
    if others:
        rows.append(target("2 GB: fastest other loader / ours", 2, min(others), at_least=True))
    if "2 GB, cold" in cases:
        rows_cold = cases["2 GB, cold"]["rows"]
        for name in ("ours", "ours, safetensors"):
            slower = ratio(rows_cold, name, "dd", "inside_ms")
            rows.append(target(f"2 GB, cold: {name} / dd", 1.2, slower))
    mapped = cases["20 GB, mapped"]["rows"][0]["inside_ms"]
    rows.append(target("20 GB mapped: ms", 100, mapped))
    return rows


if __name__ == "__main__":
    figure("loading", measure)
