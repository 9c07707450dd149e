"""The learning rate of a checkpoint on disk, which is replaced whole by one with another rate.

Only what holds a rate is written anew; the other files keep their bytes and digests and are linked
into the new folder, so that the weights of a large model are neither copied nor hashed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tensorkeep.checkpoints import manifest as manifests
from tensorkeep.checkpoints.manifest import FileFacts, Manifest
from tensorkeep.checkpoints.runs import STATE, TENSORS, RunFolder, Saved, read_text, step_of
from tensorkeep.checkpoints.states import TAG, Json
from tensorkeep.errors import BadArgument, Damaged, NotFound, StoreError
from tensorkeep.stores import commit
from tensorkeep.training import reading
from tensorkeep.training.locking import Lock
from tensorkeep.training.packing import FileTensors
from tensorkeep.training.rates import rebuilt
from tensorkeep.training.rates.arguments import Wanted
from tensorkeep.training.rates.changes import Changes, rates
from tensorkeep.training.rates.kinds import Scheduler, parts
from tensorkeep.training.saving import Order, Ways, write
from tensorkeep.training.snapshot import Buffers, taken
from tensorkeep.training.values import rebuilt as values

_IN_GROUPS = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
_LISTS = ("base_lrs", "max_lrs", "_last_lr")


@dataclass(frozen=True, slots=True)
class Edited:
    """What was changed: the rates of each group of `optimizer` before and after, and `notes`."""

    step: int
    path: Path
    optimizer: str
    scheduler: str | None
    before: list[float]
    after: list[float]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asked:
    """`plan` makes the changes of an optimizer and a scheduler, or None, without functions."""

    lr: Wanted
    mode: str
    optimizer: str | None
    scheduler: str | None
    plan: Any


def edit(folder: RunFolder, step: int | None, asked: Asked) -> Edited:
    """Raises `AlreadyExists` if a run has the folder open, and what reading and planning raise."""
    if not folder.path.is_dir():
        raise NotFound(folder.path, expected="the folder of a run", got="none")
    lock = Lock(folder.path)
    try:
        commit.recover(folder.path, lambda name: step_of(name) is not None)
        return _Editing(_whole(folder, step), asked).done()
    finally:
        lock.release()


def _whole(folder: RunFolder, step: int | None) -> Saved:
    """The checkpoint of `step`, or the newest that is whole: every byte is compared first."""
    candidates = [folder.at(step)] if step is not None else list(reversed(folder.in_time()))
    first = None
    for saved in candidates:
        damage = next(saved.damage(), None)
        if damage is None:
            return saved
        first = first or (saved, damage)
    if first is None:
        raise NotFound(folder.path, expected="a checkpoint", got="none yet")
    saved, damage = first
    where = f"tensor {damage.tensor}" if damage.tensor else ""
    if step is None:
        raise StoreError(saved.path, expected="a checkpoint that is whole", got="damaged ones")
    raise Damaged(saved.path / damage.file, expected=damage.expected, got=damage.got, where=where)


class _Editing:
    def __init__(self, saved: Saved, asked: Asked) -> None:
        self._saved, self._asked = saved, asked
        self._manifest = saved.manifest
        self._state = saved.state()
        self._tensors: dict[str, dict[str, torch.Tensor]] = {}
        self._changed: set[str] = set()

    def done(self) -> Edited:
        try:
            made = self._edited()
            text = json.dumps(self._state, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise Damaged(
                self._saved.path / STATE, expected="a run's state", got=repr(error)
            ) from error
        self._write(made, text.encode())
        return made

    def _edited(self) -> Edited:
        name = self._one("optimizer", self._asked.optimizer)
        scheduler_name = self._scheduler_name()
        optimizer = rebuilt.Rebuilt(self._groups(name))
        scheduler = self._scheduler(scheduler_name, optimizer)
        before = rates([group["lr"] for group in optimizer.param_groups])
        if not all(math.isfinite(rate) for rate in before):
            raise ValueError(f"learning rates {before}")
        changes: Changes = self._asked.plan(
            optimizer,
            scheduler,
            self._asked.lr,
            self._asked.mode,
            replay=scheduler is None or rebuilt.replayable(scheduler),
        )
        notes = [*changes.notes, *self._untracked(optimizer, scheduler)]
        changes.make()
        self._put_groups(name, optimizer)
        if scheduler_name is not None:
            self._put_scheduler(scheduler_name, scheduler, self._packed(scheduler_name)["state"])
        after = rates([group["lr"] for group in optimizer.param_groups])
        return Edited(
            self._saved.step, self._saved.path, name, scheduler_name, before, after, notes
        )

    # --- reading

    def _packed(self, name: str) -> dict[str, Json]:
        packed: dict[str, Json] = self._state["tracked"][name]
        return packed

    def _names(self, kind: str) -> list[str]:
        return [name for name, each in self._state["tracked"].items() if each["kind"] == kind]

    def _one(self, kind: str, wanted: str | None) -> str:
        have = self._names(kind)
        if wanted is None and len(have) == 1:
            return have[0]
        if wanted is not None and wanted in have:
            return wanted
        raise BadArgument(
            self._saved.path,
            expected=f"one {kind}" if wanted is None else f"{kind} {wanted!r}",
            got=", ".join(have) or f"no {kind}",
            remedy=f"Name one of them: {kind}=..." if have else "",
        )

    def _scheduler_name(self) -> str | None:
        have, wanted = self._names("scheduler"), self._asked.scheduler
        if wanted is None and not have:
            return None
        if wanted is None and len(self._names("optimizer")) > 1:
            raise BadArgument(
                self._saved.path,
                expected="the scheduler of this optimizer",
                got=f"{', '.join(have)}, which do not say whose they are",
                remedy="Name it: scheduler=...",
            )
        return self._one("scheduler", wanted)

    def _fetching(self, name: str) -> Any:  # noqa: ANN401
        file = f"{name}{TENSORS}"

        def fetch(tensor: str) -> torch.Tensor:
            return self._file(file)[tensor].clone()

        return fetch

    def _file(self, file: str) -> dict[str, torch.Tensor]:
        if file not in self._tensors:
            self._tensors[file] = reading.read_file(self._saved, file, self._manifest.files[file])
        return self._tensors[file]

    def _value(self, name: str, packed: Json) -> Any:  # noqa: ANN401
        return values(packed, self._fetching(name), f"{self._saved.path}, {name}")

    def _groups(self, name: str) -> list[dict[str, Any]]:
        options = [group["options"] for group in self._packed(name)["groups"]]
        made: list[dict[str, Any]] = self._value(name, options)
        return made

    def _scheduler(self, name: str | None, optimizer: rebuilt.Rebuilt) -> Scheduler | None:
        if name is None:
            return None
        packed = {key: each for key, each in self._packed(name).items() if key != "kind"}
        where = f"{self._saved.path}, {name}"
        return rebuilt.scheduler(self._value(name, packed), optimizer, where)

    def _untracked(self, optimizer: rebuilt.Rebuilt, scheduler: Scheduler | None) -> list[str]:
        began = any("initial_lr" in group for group in optimizer.param_groups)
        if scheduler is not None or not began:
            return []
        return ["a scheduler was at work on this optimizer, and is not in the checkpoint"]

    # --- changing

    def _put(self, name: str, into: Any, key: Any, value: Any) -> None:  # noqa: ANN401
        """Put a rate where one was; where that was a tensor, into its file."""
        old = into[key] if isinstance(into, list) else into.get(key)
        if isinstance(old, dict) and old.get(TAG) == "tensor":
            file = f"{name}{TENSORS}"
            self._file(file)[old["name"]] = value.detach().clone()
            self._changed.add(file)
        else:
            into[key] = float(value)

    def _put_groups(self, name: str, optimizer: rebuilt.Rebuilt) -> None:
        saved = self._packed(name)["groups"]
        for packed, group in zip(saved, optimizer.param_groups, strict=True):
            for key in _IN_GROUPS:
                if key in group:
                    self._put(name, packed["options"], key, group[key])

    def _put_scheduler(self, name: str, scheduler: Scheduler, state: dict[str, Json]) -> None:
        for key in _LISTS:
            if key in state:
                for at, value in enumerate(getattr(scheduler, key)):
                    self._put(name, state[key], at, value)
        if "eta_min" in state:
            self._put(name, state, "eta_min", scheduler.eta_min)
        for part, each in zip(parts(scheduler), state.get("_schedulers", ()), strict=True):
            self._put_scheduler(name, part, each)

    # --- writing

    def _write(self, made: Edited, state: bytes) -> None:
        files = self._manifest.files
        images = {name: FileTensors(self._file(name)) for name in sorted(self._changed)}
        kept = [name for name in files if name not in images and name != STATE]
        order = Order(
            self._saved.path,
            taken(images, Buffers()),
            {STATE: state},
            lambda facts: self._new_manifest(made, facts),
            replace=True,
            files=dict(files),
            links={name: self._saved.path / name for name in kept},
        )
        write(order, Ways())

    def _new_manifest(self, made: Edited, files: Mapping[str, FileFacts]) -> Manifest:
        old = read_text(self._saved.path / manifests.NAME, manifests.LONGEST)
        entry = {
            "what": "set_lr",
            "optimizer": made.optimizer,
            "mode": self._asked.mode,
            "lr": _plain(self._asked.lr),
            "from": made.before,
            "to": made.after,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "was": manifests.PREFIX + hashlib.sha256(old).hexdigest(),
        }
        facts = self._manifest.facts
        edited = [*facts.get("edited", []), entry]
        return dataclasses.replace(
            self._manifest, files=dict(files), facts={**facts, "edited": edited}
        )


def _plain(lr: Wanted) -> float | list[float]:
    return [float(each) for each in lr] if isinstance(lr, Sequence) else float(lr)
