"""A training run that survives: what is tracked is saved whole or not at all, and comes back."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from tensorkeep.checkpoints import manifest as manifests
from tensorkeep.checkpoints.keeping import KeepAll, Policy
from tensorkeep.checkpoints.runs import RUN, STATE, RunFolder, folder_of, step_of
from tensorkeep.errors import (
    BadArgument,
    DoesNotFit,
    Interrupted,
    StoreError,
    TensorkeepError,
    TensorkeepWarning,
)
from tensorkeep.provenance import facts
from tensorkeep.stores import commit
from tensorkeep.stores._errors import file_name
from tensorkeep.training import randomness, retention
from tensorkeep.training.asking import Asked
from tensorkeep.training.batches import COUNTED, Batches, Loaders
from tensorkeep.training.locking import Lock
from tensorkeep.training.making import Making, numbers, step_number
from tensorkeep.training.packing import Package
from tensorkeep.training.preflight import Preflight, accepted
from tensorkeep.training.reading import FINGERPRINT, LOADERS, RANDOM, Opened, sane
from tensorkeep.training.saving import Order, Ways, Writer, write
from tensorkeep.training.snapshot import Buffers, taken
from tensorkeep.training.stopping import Stopping, due, when
from tensorkeep.training.tracking import Tracked, tracked

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}\Z")
_RESERVED = {RANDOM, LOADERS, "state", "manifest", "run"}


class Run:
    """The run in the folder `path`, which is made if it is not there.

    `keep`: which checkpoints stay, such as `KeepLast(3) | KeepBest("val_loss", "min")`; all, if
    nothing is said. `config`: what else the manifest shall say, JSON. `asynchronous`: `save`
    returns when the state is copied, and a thread writes it. `on_sigterm="save"`: within the
    `with` block, the first SIGTERM sets `stopping`; the next `save`, or the next batch asked of
    `batches`, saves durably and raises `Interrupted`. `on_exit="save"`: the state is saved when the
    block ends without an error, if the step that `save` heard of last is not.

    Only one run at a time writes to a folder: a second one raises `AlreadyExists`. Leaving the
    `with` block (or `close`) waits until what was saved is whole. An error of the writing thread
    is raised by the next call. Raises `NotFound`, `AccessDenied`, `BadArgument`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep: Policy | None = None,
        config: Mapping[str, Any] | None = None,
        asynchronous: bool = True,
        on_sigterm: str | None = None,
        on_exit: str | None = None,
    ) -> None:
        self.path = Path(file_name(path))
        self.folder = RunFolder(self.path)
        self.keep = keep or KeepAll()
        self.config = dict(config or {})
        self.epoch = 0
        self.step = 0
        self.skipped: list[tuple[int, str]] = []
        self._asynchronous = asynchronous
        self._tracked: dict[str, Tracked] = {}
        self._modules: dict[str, torch.nn.Module] = {}
        self._stopping, self._save_on_exit = Stopping(on_sigterm), when("on_exit", on_exit)
        self._preflight = Preflight(self._tracked)
        self._loaders = Loaders(
            self, self._tracked, before=self._before_batch, gave=self._stopping.gave
        )
        self._buffers, self._ways, self._writer = Buffers(), Ways(), Writer()
        self._retention = retention.Retention(self.folder, self.keep)
        self._owner, self._closed = os.getpid(), False
        # The newest step that this run stands on; what lies beyond it may be replaced.
        self._parent: int | None = None
        commit.make_folder(self.path)
        self._lock = Lock(self.path)
        try:
            self.recovered = commit.recover(self.path, lambda name: step_of(name) is not None)
            self._settings()
            self._serial = self.folder.last_serial()
        except BaseException:
            self._lock.release()
            raise

    def _settings(self) -> None:
        content = {"kind": "tensorkeep run", "version": 1, "keep": self.keep.to_dict()}
        commit.put(self.path / RUN, manifests.sealed(content))

    def track(self, **objects: object) -> None:
        """Keep the state of these, each under its name, which is also its file's.

        Modules, optimizers, schedulers, gradient scalers, samplers, generators of torch, numpy and
        Python, dicts, and whatever has `state_dict()` and `load_state_dict()`. Raises
        `BadArgument`.
        """
        for name, target in objects.items():
            if not _NAME.match(name) or name in _RESERVED or name in self._tracked:
                raise BadArgument(
                    f"track({name}=...)",
                    expected="a name of letters, digits, - and _ that is not taken",
                    got=repr(name),
                )
            if isinstance(target, torch.nn.Module):
                self._modules[name] = target
        for name, target in objects.items():
            self._tracked[name] = tracked(name, target, self._modules)
            self._preflight.track(name, target)

    def batches(
        self,
        loader: Iterable[Any],
        name: str = COUNTED,
        *,
        exact: bool = True,
        per_sample_seed: bool = False,
    ) -> Batches:
        """One epoch of `loader`; after a `resume`, what was left of the one it was saved in.

        The batches, their augmentation and every generator afterwards are those of a run that was
        never stopped. A batch counts as consumed once it was given. Each loader of a run has a
        `name`; the epochs of "train" are counted in `epoch`, which its samplers are told
        (`set_epoch`). Leaving the loop early gives the epoch up: the next call begins it anew.
        `per_sample_seed`: random numbers of a sample depend on the run, the epoch and its index
        alone, so that nothing is loaded twice. `exact=False`: take what cannot go on exactly, with
        a warning. Raises `BadArgument` for that otherwise, or for a second loop over the same name;
        `DoesNotFit`, in the middle of an epoch, for a loader that is another than it was.
        """
        self._require_open()
        self._preflight.loader(name, loader, compared=self._loaders.midway(name))
        return self._loaders.batches(Asked(loader, name, exact, per_sample_seed))

    @property
    def stopping(self) -> bool:
        """Whether SIGTERM came."""
        return self._stopping.asked

    def _before_batch(self) -> None:
        """Stop here if the state is that of the step that is known; otherwise at the next `save`.

        What was trained on since belongs to a step whose number only the caller knows.
        """
        if self.stopping and not self._stopping.batches:
            self._save_newer(left=False)
            raise self._interrupted()

    def _save_newer(self, *, left: bool) -> None:
        self._writer.wait()
        if self.step > (self._parent or 0):
            self._save(self.step, {}, left=left)
            self._writer.wait()

    def _interrupted(self) -> Interrupted:
        self._stopping.told = True
        saved = "nothing was saved yet" if self._parent is None else f"step {self._parent} is saved"
        return Interrupted(self.path, got="SIGTERM", remedy=f"It stopped, and {saved}.")

    def save(
        self,
        step: int,
        *,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
        every: int | None = None,
    ) -> bool:
        """Save everything tracked, and every generator, as of now, as step `step`.

        Returns when the state is copied; the rest happens beside the training, and what an
        earlier save failed with is raised here. `metrics`: numbers by name, for `KeepBest` and for
        people. `wait`: return when it is durable. `every`: save only if it divides the step, or if
        SIGTERM came. Returns whether it saved. Raises `Unwritable` (with the path and the type of
        what has no place in a file), `AlreadyExists`, `NoSpace`, `BadArgument`; `Interrupted`, when
        it is durable, if SIGTERM came.
        """
        self._require_open()
        number, given = step_number(step), numbers(metrics)
        self._stopping.batches = 0
        if not due(number, every) and not self.stopping:
            self.step = number
            if not self._writer.busy:
                self._writer.wait()
            return False
        self._save(number, given, left=False)
        if wait or self.stopping or not self._asynchronous:
            self._writer.wait()
        if self.stopping:
            raise self._interrupted()
        return True

    def _save(self, number: int, metrics: dict[str, float], *, left: bool) -> None:
        self._writer.wait()
        replace = self._replaceable(number)
        package = self._package(left=left)
        order = Order(
            self.path / folder_of(number),
            taken(package.files, self._buffers),
            {STATE: self._state(package)},
            self._manifest(number, metrics),
            replace,
        )
        self.step = number
        self._writer.start(lambda: self._write(order))

    def _write(self, order: Order) -> None:
        made = write(order, self._ways)
        # Only now: a step that could not be written is nothing to stand on.
        self._parent = made.step
        self._retention.apply(made)

    def _replaceable(self, step: int) -> bool:
        """Whether a checkpoint of this step may be replaced: one that this run went back behind."""
        have = {saved.step for saved in self.folder.saved()}
        if step in have and self._parent is not None and step <= self._parent:
            raise BadArgument(
                f"step {step}",
                expected=f"a step after {self._parent}, which this run stands on",
                got="one that is saved already",
                remedy="Count steps on from what resume() returned.",
            )
        if step in have and self._parent is None:
            raise BadArgument(
                f"step {step}",
                expected="a new step",
                got=f"one that {self.path} has already",
                remedy="Call resume() first, or give the new run a folder of its own.",
            )
        return step in have

    def _package(self, *, left: bool) -> Package:
        package = Package()
        trees = {name: each.capture() for name, each in self._tracked.items()}
        for name, tree in trees.items():
            package.add(name, self._tracked[name].kind, tree)
        package.fingerprint = self._preflight.written(trees)
        package.add(RANDOM, "generators", randomness.captured())
        package.add(LOADERS, "loaders", self._loaders.capture(left=left))
        return package

    def _state(self, package: Package) -> bytes:
        loaders = package.state.pop(LOADERS)
        content = {
            "epoch": self.epoch,
            FINGERPRINT: package.fingerprint,
            LOADERS: loaders,
            "tracked": package.state,
        }
        return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def _manifest(self, step: int, metrics: dict[str, float]) -> Making:
        self._serial += 1
        made = facts(self.config)
        return Making(step, self._parent, self.epoch, metrics, made, self._serial)

    def wait(self) -> None:
        """Until what was saved is durable. Raises what the writing ended with."""
        self._writer.wait()

    def resume(self, step: int | None = None, *, accept: Iterable[str] = ()) -> int:
        """Go on from the newest checkpoint that is whole, or from `step`; 0 if there is none.

        Every byte is compared with its digest first. Damaged checkpoints are skipped, with a
        warning that names what is damaged; `skipped` has them. Everything tracked is checked
        before anything is changed. What else differs from the run that was saved (batch size,
        versions, a learning rate that the checkpoint overrides) is a warning, one for each, or an
        error if it would go on wrongly; `accept` has the kinds of difference that are meant, such
        as `("lr", "batch_size")`. Raises `DoesNotFit` if the checkpoint is not of these objects,
        `NotFound` if there is no such step, `Damaged` if none is whole or `step` is not.
        """
        self._require_open()
        meant = accepted(accept)
        self._writer.wait()
        opened = self._newest() if step is None else Opened(self.folder.at(step))
        if opened is None:
            return 0
        self._restore(opened, meant)
        return self.step

    def _newest(self) -> Opened | None:
        self.skipped = []
        for saved in reversed(self.folder.in_time()):
            try:
                return Opened(saved)
            except TensorkeepError as error:
                self.skipped.append((saved.step, str(error)))
                warnings.warn(
                    TensorkeepWarning(f"step {saved.step} is skipped: {error}"), stacklevel=4
                )
        if self.skipped:
            raise StoreError(
                self.path,
                expected="a checkpoint that is whole",
                got=f"{len(self.skipped)} damaged ones",
                remedy="Restore one from a backup, or start in a new folder.",
            )
        return None

    def _restore(self, opened: Opened, accept: frozenset[str]) -> None:
        trees = opened.trees()
        random, loaders = trees.pop(RANDOM), opened.loaders()
        self._same_objects(trees, opened)
        with sane(opened.saved.path):
            for name, each in self._tracked.items():
                each.check(trees[name])
            self._preflight.compare(opened.fingerprint, trees, accept)
        for name, each in self._tracked.items():
            with sane(f"{opened.saved.path}, {name}", DoesNotFit):
                each.restore(trees[name])
        with sane(opened.saved.path):
            self._preflight.restored(opened.fingerprint)
            notes = randomness.restored(random)
        for note in notes:
            warnings.warn(TensorkeepWarning(note), stacklevel=4)
        self._loaders.restore(loaders, random)
        self.epoch = int(opened.state["epoch"])
        self.step = self._parent = opened.saved.step
        self._stopping.batches = 0

    def _same_objects(self, trees: Mapping[str, object], opened: Opened) -> None:
        if trees.keys() != self._tracked.keys():
            only = sorted(trees.keys() - self._tracked.keys())
            new = sorted(self._tracked.keys() - trees.keys())
            got = [f"{', '.join(only)} only in the checkpoint"] if only else []
            got += [f"{', '.join(new)} only tracked now"] if new else []
            raise BadArgument(
                opened.saved.path,
                expected="the objects that are tracked",
                got="; ".join(got),
                remedy="Track what the run tracked, under the same names.",
            )

    def _require_open(self) -> None:
        if self._closed:
            raise BadArgument(
                self.path,
                expected="a run that is open",
                got="one that was closed",
                remedy="Keep it open as long as it saves: its folder may be another run's now.",
            )
        if os.getpid() != self._owner:
            raise BadArgument(
                self.path,
                expected="the process that opened the run",
                got=f"a child of it ({os.getpid()})",
            )

    def close(self) -> None:
        """Wait for what was saved, let go of the folder. Raises what the writing ended with."""
        try:
            if os.getpid() == self._owner:
                self._writer.wait()
        finally:
            self._closed = True
            self._stopping.remove()
            self._lock.release()

    def __enter__(self) -> Self:
        self._stopping.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if (
                error is None
                and not self._closed
                and os.getpid() == self._owner
                and (self._save_on_exit or self.stopping)
            ):
                self._save_newer(left=True)
        finally:
            self.close()
        if error is None and self.stopping and not self._stopping.told:
            raise self._interrupted()
