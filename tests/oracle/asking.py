"""Asks the sandboxed child what happens when a file is loaded, and says whether the law holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tensorkeep

HERE = Path(__file__).resolve().parent


@dataclass
class Outcome:
    """What loading did: each way of loading and its end, and everything outside the law."""

    loads: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    died: str = ""
    names: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Everything that a file with the verdict `safe` may not do."""
        found = [*self.violations, *self.events, *self.later, *self.changed]
        return found + ([f"died of {self.died}"] if self.died else [])

    @property
    def works(self) -> bool:
        """Whether a payload happened, or was refused as it began; a name alone is none."""
        called = any(not found.startswith("name ") for found in self.violations)
        return bool(called or self.events or self.changed or self.died)

    @property
    def loaded(self) -> bool:
        return "loaded" in self.loads.values()


class Oracle:
    """The process, for a `with` block; `ask` forks a fresh child in it for each question."""

    def __enter__(self):
        source = str(Path(tensorkeep.__file__).resolve().parent.parent)
        env = {
            "PATH": os.defpath,
            "HOME": tempfile.gettempdir(),
            "PYTHONPATH": source,
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
        }
        command = [sys.executable, "-X", "utf8", str(HERE / "oracle_child.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.ready = self._read()
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the oracle ended: {self._process.wait(10)}")
        return json.loads(line)

    def _ask(self, jobs):
        self._process.stdin.write(json.dumps(jobs) + "\n")
        self._process.stdin.flush()
        return self._read()

    def file(self, path):
        """What loading the file at `path` does."""
        return self._one({"file": str(path)})

    def pickle(self, data):
        """What loading this pickle does."""
        return self._one({"pickle": data.hex()})

    def _one(self, job):
        return _outcome(self._ask([job]))

    def files(self, paths):
        """The outcome of each file by its path; those that break the law had a child alone."""
        return self._each([{"file": str(path)} for path in paths])

    def pickles(self, programs):
        """The outcome of each program by its bytes in hexadecimal."""
        return self._each([{"pickle": data.hex()} for data in programs])

    def together(self, paths):
        """The outcome of each file, all of them loaded by one child as long as it lives.

        For files whose every outcome is wanted and whose payloads the child refuses; what changed
        is not traced to one of them.
        """
        jobs = [{"file": str(path)} for path in paths]
        found = {}
        while jobs:
            answers = self._ask(jobs)
            done = answers[:-1]
            if answers[-1].get("died"):
                done = [*done, answers[-1]]
            for job, answer in zip(jobs, done, strict=False):
                found[_subject(job)] = _outcome([answer])
            jobs = jobs[len(done) :]
        return found

    def _each(self, jobs):
        """All are asked in one child; what that shows is traced to one of them by halving."""
        if len(jobs) < 2:
            return {_subject(job): self._one(job) for job in jobs}
        answers = self._ask(jobs)
        if len(answers) == len(jobs) + 1 and not any(map(_odd, answers)):
            pairs = zip(jobs, answers[:-1], strict=True)
            return {_subject(job): _outcome([answer]) for job, answer in pairs}
        middle = len(jobs) // 2
        found = self._each(jobs[:middle]) | self._each(jobs[middle:])
        if not any(outcome.broken for outcome in found.values()):
            found[""] = Outcome(changed=[f"together only: {answers[-1]}"])
        return found


def _subject(job):
    return job.get("file") or job["pickle"]


def _outcome(answers):
    outcome = Outcome()
    for answer in answers:
        for name in ("loads", "violations", "later", "changed", "died", "names"):
            if name in answer:
                setattr(outcome, name, answer[name])
        outcome.events += [": ".join(event) for event in answer.get("events", ())]
    return outcome


def _odd(answer):
    return any(answer.get(key) for key in ("violations", "events", "later", "changed", "died"))
