"""The proof that a training function that was killed and resumed ends as if it had not been.

Each run is a child process: one from beginning to end, the same once more (to tell what differs by
itself), and one that is killed with SIGKILL, resumed, killed again. What they saved is compared
bit for bit. Only the function that the caller names is run.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tensorkeep.checkpoints.runs import Saved
from tensorkeep.errors import AlreadyExists, BadArgument, DidNotFinish
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.training import causes, records
from tensorkeep.training.children import Named, Runner
from tensorkeep.training.proof import DIFFERS, MOMENTS, UNSTEADY, Difference, Kill, ProofReport

_FIRST, _AGAIN, _KILLED = "uninterrupted", "again", "killed"
_LONGEST_DELAY = 0.02  # seconds into the writing of a checkpoint
Function = str | Callable[..., object]


def prove_resume(
    function: Function,
    *,
    steps: int,
    kill_at: Sequence[int] | None = None,
    kills: int = 2,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> ProofReport:
    """Prove that `function`, killed and resumed, ends with the state that it ends with otherwise.

    `function`: one at the top of a module, or "package.module:function"; it is called as
    `function(run, steps)` with a `Run`, tracks what has state, calls `run.resume()` and trains
    until `steps`, saving as it likes. `kill_at`: SIGKILL at the first save of each of these steps
    or a later one; `kills`: so many random steps, drawn by `seed`, if none are given. Kills come in
    turn before the next save, while a checkpoint is written, and when it was saved. Each child
    begins with the global generators seeded by `seed`, one that goes on with another seed.
    `folder`: where the runs are kept, to look at them; nothing must be there.

    Compared are the states of everything tracked, every generator and every loader; not metrics,
    times and what made the checkpoint. Raises `DidNotFinish` if the function raises, never saves or
    does not resume; `BadArgument`; `AlreadyExists`; `Damaged`.
    """
    _check(steps, kill_at, kills)
    named = Named.of(function)
    with _place(folder) as work:
        return _Proof(Runner(named, steps, seed, work), kill_at, kills, reporter).report()


def assert_resumes(
    function: Function,
    *,
    steps: int,
    kill_at: Sequence[int] | None = None,
    kills: int = 2,
    seed: int = 0,
) -> ProofReport:
    """For tests: `prove_resume`, or an `AssertionError` that says what differs and why."""
    report = prove_resume(function, steps=steps, kill_at=kill_at, kills=kills, seed=seed)
    if not report.proven:
        raise AssertionError(str(report))
    return report


def _check(steps: int, kill_at: Sequence[int] | None, kills: int) -> None:
    if type(steps) is not int or steps < 2:
        raise BadArgument("steps", expected="2 steps or more", got=repr(steps))
    if kill_at is None and (type(kills) is not int or kills < 1):
        raise BadArgument("kills", expected="1 kill or more", got=repr(kills))
    for step in kill_at or ():
        if type(step) is not int or not 1 <= step < steps:
            raise BadArgument("kill_at", expected=f"steps from 1 to {steps - 1}", got=repr(step))
    if kill_at is not None and not kill_at:
        raise BadArgument("kill_at", expected="a step or more", got="none")


@contextmanager
def _place(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="tensorkeep-prove-") as made:
            yield Path(made)
        return
    path = Path(folder).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AlreadyExists(path, expected="an empty folder, or none", got="something there")
    path.mkdir(parents=True, exist_ok=True)
    yield path


@dataclass(slots=True)
class _Proof:
    """One proof, on its way to a report."""

    runner: Runner
    kill_at: Sequence[int] | None
    kills: int
    reporter: Reporter
    _done: int = 0
    _untracked: list[str] = field(default_factory=list)

    def report(self) -> ProofReport:
        """Run the function, again, and killed; compare."""
        self.reporter.start("proving", 0)
        try:
            first = self._run_whole(_FIRST)
            self._run_whole(_AGAIN)
            found = self._compared(_AGAIN, [])
            if found.differences:
                found.verdict, found.cause = UNSTEADY, causes.unsteady(found)
                return found
            found = self._compared(_KILLED, self._run_killed(sorted(first)))
        finally:
            self.reporter.finish()
        if found.differences:
            found.verdict, found.cause = DIFFERS, causes.likely(found, self._kinds())
        return found

    def _say(self, what: str) -> None:
        total = 3 + (self.kills if self.kill_at is None else len(set(self.kill_at)))
        self._done += 1
        self.reporter.count(self._done, total, what)

    def _run_whole(self, name: str) -> dict[int, Saved]:
        self._say(f"runs: {name}")
        ended = self.runner.run(name)
        saved = self._records(name)
        if not saved:
            raise DidNotFinish(
                str(self.runner.function), expected="a function that calls run.save", got="no save"
            )
        records.check_whole(self.runner.work / name)
        self._untracked = next(
            (each["names"] for each in ended.events if each["event"] == "untracked"), []
        )
        return saved

    def _records(self, name: str) -> dict[int, Saved]:
        return records.recorded(self.runner.records(name))

    def _run_killed(self, saved: list[int]) -> list[Kill]:
        made: list[Kill] = []
        for at, (kill, delay) in enumerate(self._plan(saved)):
            self._say(f"runs: killed at step {kill.step}")
            ended = self.runner.run(_KILLED, at, kill, delay)
            self._resumed(made, ended.steps("resume"))
            made.append(replace(kill, step=ended.steps("kill")[-1]))
        self._say("runs: resumed, to its end")
        self._resumed(made, self.runner.run(_KILLED, len(made)).steps("resume"))
        if not any(kill.resumed for kill in made):
            raise DidNotFinish(
                str(self.runner.function),
                expected="a checkpoint to resume from",
                got="none that was whole when the run was killed",
                remedy="Kill it later, or let it save more often.",
            )
        records.check_whole(self.runner.work / _KILLED)
        return made

    def _resumed(self, made: list[Kill], steps: list[int]) -> None:
        if made:
            made[-1] = replace(made[-1], resumed=steps[0])

    def _plan(self, saved: list[int]) -> list[tuple[Kill, float]]:
        """Raises `DidNotFinish` if there is nothing to resume between two saves."""
        drawn = random.Random(self.runner.seed)  # noqa: S311  # nothing is to be kept secret
        before_last = saved[:-1]
        if not before_last:
            raise DidNotFinish(
                str(self.runner.function),
                expected="a function that saves at least twice",
                got=f"one save, of step {saved[0]}",
            )
        steps = self.kill_at or drawn.sample(before_last, min(self.kills, len(before_last)))
        for step in steps:
            if step > before_last[-1]:
                raise BadArgument(
                    "kill_at",
                    expected=f"a step up to {before_last[-1]}, after which the run saves again",
                    got=step,
                )
        ordered = sorted(set(steps))
        return [
            (Kill(step, MOMENTS[at % len(MOMENTS)]), drawn.random() * _LONGEST_DELAY)
            for at, step in enumerate(ordered)
        ]

    def _compared(self, other: str, kills: list[Kill]) -> ProofReport:
        a, b = self._records(_FIRST), self._records(other)
        report = ProofReport(str(self.runner.function), self.runner.steps, self.runner.seed)
        report.kills, report.untracked = kills, self._untracked
        report.compared = sorted(a.keys() & b.keys())
        for step in report.compared:
            report.step = step
            report.differences = records.differences(a[step], b[step])
            if report.differences:
                return report
        self._same_end(report, a, b)
        report.tensors, report.values = records.counted(a[max(a)])
        return report

    def _same_end(
        self, report: ProofReport, a: Mapping[int, Saved], b: Mapping[int, Saved]
    ) -> None:
        if max(a) != max(b, default=0):
            report.step = max(a)
            where = f"the last step that is saved, {max(b, default=0)} and not {max(a)}"
            report.differences = [Difference("step", "counter", where)]

    def _kinds(self) -> set[str]:
        saved = self._records(_FIRST)
        return {each["kind"] for each in saved[max(saved)].state()["tracked"].values()}
