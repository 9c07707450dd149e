"""Targets one after the other for a while each, and what came of it: `make fuzz`.

    python tests/fuzz/campaign.py --seconds 3600 --out fuzz-out [fuzz_zip ...]

Seconds are processor seconds, so that an hour is an hour on a machine that does other work too.
What was found lies in OUT/TARGET/found: an input for each place in the code, and its traceback.
A line of JSON per target goes into OUT/results.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = tuple(sorted(path.stem for path in HERE.glob("fuzz_*.py")))
# A target that waits instead of working would never use its seconds up.
LONGEST = 10
_STATUS = re.compile(rb"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=3600, help="of processor, for each")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"))
    asked = parser.parse_args()
    failures = 0
    for name in asked.targets or TARGETS:
        result = run(name, asked.out / name, asked.seconds)
        failures += len(result["findings"])
        line = json.dumps(result)
        print(line, flush=True)
        with (asked.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")
        if result["stopped"]:
            break
    return min(failures, 1)


def run(name: str, folder: Path, seconds: int) -> dict[str, object]:
    """One target; where its process ends early, by a hang or a crash of its own, it goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    began, used = time.monotonic(), _processor()
    executions = restarts = 0
    reached = (0, 0, 0)
    stopped = False
    while not stopped and (left := round(seconds - (_processor() - used))) > 5:
        if time.monotonic() - began > LONGEST * seconds:
            break
        log = folder / f"log.{restarts}"
        stopped = _start(name, folder, left, log)
        lines = _STATUS.findall(log.read_bytes())
        counts = [tuple(map(int, line)) for line in lines]
        executions += max((count[0] for count in counts), default=0)
        reached = max([reached, *(count[1:] for count in counts)])
        restarts += 1
    found = sorted(path.name for path in (folder / "found").glob("*") if path.suffix != ".txt")
    found += sorted(path.name for path in folder.glob("*-*") if path.is_file())
    return {
        "target": name,
        "seconds": round(_processor() - used),
        "wall_seconds": round(time.monotonic() - began),
        "executions": executions,
        "edges": reached[0],
        "features": reached[1],
        "corpus": reached[2],
        "starts": restarts,
        "stopped": stopped,
        "findings": found,
    }


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _start(name: str, folder: Path, seconds: int, log: Path) -> bool:
    """Whether it was stopped by a signal to this process; what was reached counts."""
    command = [sys.executable, str(HERE / "harness.py"), name, str(folder)]
    command += [f"-max_total_time={seconds}"]
    environment = {**os.environ, "KEEP_GOING": "1"}
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            return True
    return False


def _stop(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
