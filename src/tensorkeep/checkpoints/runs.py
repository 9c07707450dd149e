"""Run folders: training checkpoints side by side, each with a manifest that says what is in it.

    runs/exp1/step-00000100/{model,optimizer,rng}.safetensors, state.json, manifest.json
    runs/exp1/run.json

`manifest` has the digests, `stores.commit` makes a checkpoint appear. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tensorkeep.checkpoints import manifest as manifests
from tensorkeep.checkpoints.manifest import Manifest, file_digest
from tensorkeep.errors import Damaged, NotFound, TensorkeepError
from tensorkeep.facts import Limits
from tensorkeep.formats import read as read_format
from tensorkeep.formats import safetensors
from tensorkeep.formats.contents import Contents
from tensorkeep.stores import commit, parallel
from tensorkeep.stores.local import LocalBlob

RUN = "run.json"
STATE = "state.json"
TENSORS = ".safetensors"
BUFFERS = ".buffers.safetensors"
_STEP = re.compile(r"step-(\d{8,})\Z")
_PIECE = 4 << 20


def folder_of(step: int) -> str:
    """The name of the folder of a step."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step of a folder's name, or None if it is none of a checkpoint."""
    match = _STEP.match(name)
    step = int(match[1]) if match else None
    return step if step is not None and folder_of(step) == name else None


@dataclass(frozen=True, slots=True)
class Damage:
    """`file` of a checkpoint (and `tensor` in it): what the manifest says, and what is there."""

    file: str
    tensor: str
    expected: str
    got: str


@dataclass(frozen=True)
class Saved:
    """One checkpoint of a run."""

    step: int
    path: Path

    @cached_property
    def manifest(self) -> Manifest:
        """Raises `Damaged`, `NotFound`, `Unsupported`."""
        path = self.path / manifests.NAME
        made = Manifest.from_bytes(read_text(path, manifests.LONGEST), str(path))
        if made.step != self.step:
            raise Damaged(path, expected=f"the manifest of step {self.step}", got=made.step)
        return made

    def state(self) -> dict[str, Any]:
        """`state.json`. Raises `Damaged`, `NotFound`."""
        path = self.path / STATE
        try:
            made: dict[str, Any] = json.loads(read_text(path, manifests.LONGEST))
        except (ValueError, RecursionError) as error:
            raise Damaged(path, expected="JSON", got=str(error)) from error
        return made

    def damage(self, *, deep: bool = True) -> Iterator[Damage]:
        """What is not as the manifest says. Reads every byte or, if not `deep`, sizes only."""
        try:
            files = self.manifest.files
        except TensorkeepError as error:
            yield Damage(manifests.NAME, "", error.expected, error.got)
            return
        if STATE not in files:
            yield Damage(STATE, "", "a file that the manifest names", "none")
        for name, facts in files.items():
            try:
                yield from _file_damage(self.path / name, name, facts, deep=deep)
            except TensorkeepError as error:
                yield Damage(name, "", error.expected or "a whole file", error.got)


def _file_damage(
    path: Path, name: str, facts: manifests.FileFacts, *, deep: bool
) -> Iterator[Damage]:
    with LocalBlob(path) as blob:
        if blob.size != facts.nbytes:
            yield Damage(name, "", f"{facts.nbytes} bytes", f"{blob.size} bytes")
        if blob.size != facts.nbytes or not deep:
            return
        if not name.endswith(TENSORS):
            found = manifests.PREFIX + _digest(blob, 0, blob.size).hexdigest()
            if found != facts.digest:
                yield Damage(name, "", facts.digest, found)
            return
        yield from _tensor_damage(blob, name, facts)


def _tensor_damage(blob: LocalBlob, name: str, facts: manifests.FileFacts) -> Iterator[Damage]:
    digest = file_digest(header_of(blob), (bytes.fromhex(d[7:]) for d in facts.tensors.values()))
    if digest != facts.digest:
        yield Damage(name, "", facts.digest, f"{digest}: the header is another")
        return
    storages = contents_of(blob, facts).storages
    found: dict[str, str] = {}

    def digesting(tensor: str) -> parallel.Job:
        def run() -> None:
            place = storages[tensor]
            made = _digest(blob, place.offset, place.offset + place.nbytes)
            found[tensor] = manifests.PREFIX + made.hexdigest()

        return run

    jobs = [digesting(tensor) for tensor in facts.tensors]
    parallel.run(jobs, parallel.threads_for(blob.size, len(jobs)))
    for tensor, expected in facts.tensors.items():
        if found[tensor] != expected:
            yield Damage(name, tensor, expected, found[tensor])


def header_of(blob: LocalBlob) -> bytes:
    """The header of a safetensors file, its length included. Raises `Damaged`."""
    length = int.from_bytes(blob.read(0, 8), "little")
    longest = min(blob.size - 8, Limits().max_json_bytes)
    if length > longest:
        raise Damaged(blob.name, expected=f"a header of at most {longest} bytes", got=length)
    return blob.read(0, 8 + length)


def contents_of(blob: LocalBlob, facts: manifests.FileFacts) -> Contents:
    """What is in a safetensors file, which must be the tensors of `facts`. Raises `Damaged`.

    A tensor without a digest would be taken unread, whatever it is.
    """
    contents = read_format(blob, Limits())
    if contents.format != safetensors.NAME:
        raise Damaged(blob.name, expected=safetensors.NAME, got=contents.format)
    other = contents.storages.keys() ^ facts.tensors.keys()
    if other:
        raise Damaged(
            blob.name,
            expected="the tensors that the manifest names",
            got=f"{len(other)} that only one of both has",
            where=f"tensor {min(other)}",
        )
    return contents


def _digest(blob: LocalBlob, start: int, stop: int) -> Any:  # noqa: ANN401
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_PIECE, max(stop - start, 1))))
    for at in range(start, stop, len(buffer)):
        piece = buffer[: min(len(buffer), stop - at)]
        blob.read_into(at, piece)
        digest.update(piece)
    return digest


def read_text(path: Path, longest: int) -> bytes:
    """A small file whole. Raises `Damaged` if it is longer than anybody writes, `NotFound`."""
    with LocalBlob(path) as blob:
        if blob.size > longest:
            raise Damaged(path, expected=f"at most {longest} bytes", got=blob.size)
        return blob.read(0, blob.size)


def _serial(saved: Saved) -> int | None:
    try:
        return saved.manifest.serial
    except TensorkeepError:
        return None


class RunFolder:
    """The checkpoints below `path`, oldest step first. Looks, and changes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def saved(self) -> list[Saved]:
        """All of them, whole or not. Raises `AccessDenied`."""
        steps = ((step_of(name), name) for name in commit.names(self.path))
        found = [Saved(step, self.path / name) for step, name in steps if step is not None]
        return sorted(found, key=lambda each: each.step)

    def in_time(self) -> list[Saved]:
        """All of them as they were saved, the newest last, which need not be the highest step.

        A run that went back leaves steps behind that it has not come to again. What cannot be read
        stands where its step would.
        """
        placed, last = [], 0
        for each in self.saved():
            serial = _serial(each)
            last = last if serial is None else serial
            placed.append(((last, serial is None), each))
        return [each for _, each in sorted(placed, key=lambda pair: pair[0])]

    def last_serial(self) -> int:
        """Of the newest checkpoint; 0 if there is none that can be read."""
        return max((_serial(each) or 0 for each in self.saved()), default=0)

    def at(self, step: int) -> Saved:
        """Raises `NotFound`, which names the steps that there are."""
        for each in self.saved():
            if each.step == step:
                return each
        steps = ", ".join(str(each.step) for each in self.saved()[-5:]) or "none"
        raise NotFound(
            self.path,
            expected=f"one of the steps {steps}",
            got=f"step {step}",
            remedy="List them with: tensorkeep runs list.",
        )

    def settings(self) -> dict[str, Any]:
        """`run.json`; empty if there is none. Raises `Damaged`."""
        path = self.path / RUN
        try:
            return manifests.unsealed(read_text(path, 1 << 20), str(path))
        except NotFound:
            return {}
