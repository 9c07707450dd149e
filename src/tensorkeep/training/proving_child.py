"""The child of `prove_resume`: runs the caller's function once, and kills itself where it is told.

Whatever happens is a line of JSON in the file of events: a line that was written outlives SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module, util
from pathlib import Path
from typing import Any, NoReturn

import torch

from tensorkeep.checkpoints.keeping import KeepLast
from tensorkeep.checkpoints.runs import RunFolder, folder_of
from tensorkeep.training import records
from tensorkeep.training.batches import COUNTED, Batches
from tensorkeep.training.proof import NEXT, SAVED, WRITING
from tensorkeep.training.run import Run
from tensorkeep.training.saving import Order
from tensorkeep.training.untracked import untracked

# What is resumed from, and the one before it, should that be damaged.
_KEPT = 2
_HERE = Path(__file__).parents[1]


def main(path: str) -> int:
    """The job in the JSON file `path`. Exit code: 0 if the function came to its end, else 1."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    events = Path(job["events"])
    phase = "import"
    try:
        function = _function(job)
        phase = "run"
        _work(function, job, events)
    except BaseException as error:  # also SystemExit: whatever it is, it is told
        tell(events, event="error", phase=phase, **_told(error))
        traceback.print_exc()
        return 1
    return 0


def tell(events: Path, **what: object) -> None:
    """Add a line."""
    with events.open("a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


def _told(error: BaseException) -> dict[str, str]:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_theirs(f.filename)]
    # The line of the function rather than the one inside of a library that it calls.
    own = [f for f in frames if "site-packages" not in f.filename] or frames
    last = own[-1] if own else None
    where = f"{last.filename}, line {last.lineno}, {last.name}: {last.line}" if last else ""
    text = str(error)
    name = type(error).__name__
    return {"what": f"{name}: {text}" if text else name, "where": where}


def _is_theirs(file: str) -> bool:
    ours = _HERE in Path(file).parents
    return not (ours or file.startswith("<frozen ") or file == import_module.__code__.co_filename)


def _work(function: Callable[[Run, int], object], job: Mapping[str, Any], events: Path) -> None:
    folder = Path(job["run"])
    _seed(int(job["seed"]), anew=not RunFolder(folder).saved(), attempt=int(job["attempt"]))
    run = Watched(folder, Path(job["records"]), events, job["kill"])
    with run:
        function(run, int(job["steps"]))
        run.end()


def _seed(seed: int, *, anew: bool, attempt: int) -> None:
    """Every global generator. A run that goes on gets another seed than the one that began had.

    What the function does not seed, track or resume itself would come out alike otherwise, and
    would not where the training really runs.
    """
    own = seed if anew else seed + attempt + 1
    random.seed(own)
    torch.manual_seed(own)
    if util.find_spec("numpy"):
        # Also if the function imports it only later: its state is saved from then on.
        import numpy

        numpy.random.seed(own % 2**32)


def _function(job: Mapping[str, Any]) -> Callable[[Run, int], object]:
    module, file = job["module"], job["file"]
    # A script, or a test that pytest imported under a name of its own, is found by its file.
    named = not file or _origin(module) == file
    found: Any = import_module(module) if named else _by_file(module, file)
    for part in job["name"].split("."):
        found = getattr(found, part)
    made: Callable[[Run, int], object] = found
    return made


def _origin(module: str) -> str | None:
    """The file that importing `module` would run."""
    if module == "__main__":
        return None
    try:
        spec = util.find_spec(module)
    except (ImportError, ValueError):  # no such package around it
        return None
    return None if spec is None else spec.origin


def _by_file(module: str, file: str) -> object:
    sys.path.append(str(Path(file).parent))
    spec = util.spec_from_file_location("__proved__" if module == "__main__" else module, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    made = util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


class Watched(Run):
    """A run that records what it saves, and dies where it is told."""

    def __init__(
        self, path: Path, kept: Path, events: Path, kill: Mapping[str, Any] | None
    ) -> None:
        super().__init__(path, keep=KeepLast(_KEPT))
        self._kept, self._events, self._kill = kept, events, kill
        self._due = self._looked = False
        self._batched: list[object] = []

    def resume(self, step: int | None = None, *, accept: Iterable[str] = ()) -> int:
        """See `Run`."""
        found = super().resume(step, accept=accept)
        saved = self.path / folder_of(found)
        if saved.is_dir():
            # The kill may have come between the checkpoint and its record.
            records.keep(saved, self._kept)
        tell(self._events, event="resume", step=found)
        return found

    def batches(
        self,
        loader: Iterable[Any],
        name: str = COUNTED,
        *,
        exact: bool = True,
        per_sample_seed: bool = False,
    ) -> Batches:
        """See `Run`."""
        self._batched.append(loader)
        return super().batches(loader, name, exact=exact, per_sample_seed=per_sample_seed)

    def save(
        self,
        step: int,
        *,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
        every: int | None = None,
    ) -> bool:
        """See `Run`."""
        if self._due:
            self._die()
        if not super().save(step, metrics=metrics, wait=wait, every=every):
            return False
        tell(self._events, event="save", step=self.step)
        if not self._looked:
            self._looked = True
            names = untracked(self._tracked, self._loaders, self._batched)
            tell(self._events, event="untracked", names=names)
        if self._kill is not None and self.step >= self._kill["step"]:
            self._kill_now_or_later(self._kill["moment"])
        return True

    def _kill_now_or_later(self, moment: str) -> None:
        assert self._kill is not None
        if moment == WRITING:
            time.sleep(self._kill["delay"])
            self._die(wait=False)
        elif moment == SAVED:
            self._die()
        elif moment == NEXT:
            self._due = True

    def _write(self, order: Order) -> None:
        super()._write(order)
        records.keep(order.target, self._kept)

    def end(self) -> None:
        """The function returned; a run that was to die before its next save dies now."""
        if self._due:
            self._die()
        self.wait()
        tell(self._events, event="end")

    def _die(self, *, wait: bool = True) -> NoReturn:
        if wait:
            self.wait()
        tell(self._events, event="kill", step=self.step)
        os.kill(os.getpid(), signal.SIGKILL)
        raise SystemExit(1)  # never reached: nothing comes after SIGKILL
