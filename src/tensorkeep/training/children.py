"""A training function run in a child process, to its end or until it kills itself."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorkeep.errors import BadArgument, DidNotFinish
from tensorkeep.training.proof import Kill

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tensorkeep.training.proving_child import main; sys.exit(main(sys.argv[2]))"
)
_TAIL = 12
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


@dataclass(frozen=True, slots=True)
class Named:
    """A function that a child can find: by its module or, if `file` is not empty, in this file."""

    module: str
    name: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    @classmethod
    def of(cls, function: str | Callable[..., object]) -> Named:
        """Of "package.module:function", or a function of a module. Raises `BadArgument`."""
        if isinstance(function, str):
            if not _FUNCTION.match(function):
                raise BadArgument(
                    function, expected="package.module:function", got="a text without such a name"
                )
            return cls(*function.split(":"))
        module, name = (getattr(function, at, "") for at in ("__module__", "__qualname__"))
        if not module or not name or not name.replace(".", "_").isidentifier():
            raise BadArgument(
                "function",
                expected="a function at the top of a module, which another process can import",
                got=name or repr(function),
                remedy="Define it with def, outside of other functions.",
            )
        return cls(module, name, _file_of(function))


def _file_of(function: Callable[..., object]) -> str:
    try:
        return str(Path(inspect.getfile(function)).absolute())
    except (OSError, TypeError) as error:
        raise BadArgument(
            "function",
            expected="a function of a file, which another process can read",
            got=str(error),
            remedy="Write it into a module, and pass it from there.",
        ) from error


@dataclass(slots=True)
class Ended:
    """How a child ended: what it told on the way, and the last lines that it wrote."""

    code: int
    events: list[dict[str, Any]]
    output: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether it died where it was told to."""
        return self.code == -signal.SIGKILL and any(e["event"] == "kill" for e in self.events)

    def steps(self, event: str) -> list[int]:
        """The steps of all events of a name."""
        return [each["step"] for each in self.events if each["event"] == event]


@dataclass(slots=True)
class Runner:
    """Runs `function` in children, for runs in the folder `work`."""

    function: Named
    steps: int
    seed: int
    work: Path
    _started: int = 0

    def run(self, name: str, attempt: int = 0, kill: Kill | None = None, delay: float = 0) -> Ended:
        """One child on the run `name`. Raises `DidNotFinish` unless it did what it was to do."""
        self._started += 1
        events = self.work / f"child-{self._started}.events"
        job = {
            "module": self.function.module,
            "name": self.function.name,
            "file": self.function.file,
            "steps": self.steps,
            "seed": self.seed,
            "attempt": attempt,
            "run": str(self.work / name),
            "records": str(self.records(name)),
            "events": str(events),
            "kill": kill and {"step": kill.step, "moment": kill.moment, "delay": delay},
        }
        path = self.work / f"child-{self._started}.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        ended = _ended(path, events)
        self._check(ended, name, kill)
        return ended

    def records(self, name: str) -> Path:
        """Where the records of a run lie."""
        return self.work / f"{name}.records"

    def _check(self, ended: Ended, name: str, kill: Kill | None) -> None:
        failed = [each for each in ended.events if each["event"] == "error"]
        if failed:
            raise self._raised(ended, failed[0])
        if ended.code != 0 and not ended.killed:
            raise self._failure(ended, "a function that trains to its end", _code(ended.code))
        if not ended.steps("resume"):
            raise self._failure(
                ended,
                "a function that calls run.resume()",
                "none such call",
                remedy="Call it after run.track(...), and train on from the step that it returns.",
            )
        if kill is not None and not ended.killed:
            got = max(ended.steps("save"), default=0)
            raise self._failure(
                ended,
                f"a save of step {kill.step} or later in the run {name!r}",
                f"an end at step {got}",
            )

    def _raised(self, ended: Ended, event: dict[str, str]) -> DidNotFinish:
        if event["phase"] == "import":
            expected = "a module that can be imported, and a function in it"
            remedy = "Run it in the folder that holds the module."
        else:
            expected = "a function that trains to its end"
            remedy = "Call it yourself, with a tk.Run, to see where it fails."
        return self._failure(ended, expected, event["what"], event["where"], remedy)

    def _failure(
        self, ended: Ended, expected: str, got: str, where: str = "", remedy: str = ""
    ) -> DidNotFinish:
        error = DidNotFinish(
            str(self.function), expected=expected, got=got, where=where, remedy=remedy
        )
        error.output = tuple(ended.output)
        return error


def _code(code: int) -> str:
    if code >= 0:
        return f"an exit with code {code}"
    name = signal.Signals(-code).name
    also = ", which is not ours: was memory short?" if code == -signal.SIGKILL else ""
    return f"{name}{also}"


def _ended(job: Path, events: Path) -> Ended:
    log = job.with_suffix(".log")
    paths = json.dumps([str(Path.cwd()), *sys.path])
    with (
        log.open("wb") as output,
        _child([sys.executable, "-c", _PROGRAM, paths, str(job)], output) as child,
    ):
        code = child.wait()
    told = events.read_text(encoding="utf-8").splitlines() if events.exists() else []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return Ended(code, [json.loads(line) for line in told], lines[-_TAIL:])


@contextmanager
def _child(command: list[str], output: Any) -> Iterator[subprocess.Popen[bytes]]:  # noqa: ANN401
    """A child in a process group of its own, which is gone afterwards, its workers too."""
    child = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
