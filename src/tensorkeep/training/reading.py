"""A checkpoint read back: every byte compared with its digest on the way into memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch

from tensorkeep.checkpoints import manifest as manifests
from tensorkeep.checkpoints.manifest import FileFacts, Manifest, file_digest
from tensorkeep.checkpoints.runs import STATE, TENSORS, Saved, contents_of, header_of, read_text
from tensorkeep.errors import Damaged, TensorkeepError
from tensorkeep.formats.contents import TensorRecord
from tensorkeep.live.arenas import Arena
from tensorkeep.live.tensors import torch_dtype
from tensorkeep.stores import parallel
from tensorkeep.stores.local import LocalBlob
from tensorkeep.training.packing import Tree, unpacked

_PIECE = 4 << 20
RANDOM = "rng"
LOADERS = "loaders"
FINGERPRINT = "fingerprint"


@contextlib.contextmanager
def sane(subject: object, kind: type[TensorkeepError] = Damaged) -> Iterator[None]:
    """Raises `kind` for what comes of content that has its digests and that we never write."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        StopIteration,
        TypeError,
        ValueError,
    ) as error:
        if isinstance(error, TensorkeepError):
            raise
        raise kind(subject, expected="state as tensorkeep writes it", got=repr(error)) from error


def _state(made: dict[str, Any]) -> dict[str, Any]:
    made["epoch"] = int(made["epoch"])
    if RANDOM not in made["tracked"]:
        raise ValueError(f"no {RANDOM}")
    if not all(isinstance(facts, dict) for facts in (made.get(FINGERPRINT) or {}).values()):
        raise TypeError("a fingerprint whose facts have no names")
    return made


def _place(loader: dict[str, Any]) -> None:
    """Raises if it is not where a loader was, as `batches` writes it."""
    position = loader["position"]
    if not isinstance(loader["epoch"], int) or not isinstance(loader["carried"], dict):
        raise TypeError("a loader without its epoch or generators")
    if position is not None:
        numbers = position["epoch"], position["taken"]
        kept = position["facts"], *(position["start"][k] for k in ("globals", "tracked", "carried"))
        if not all(isinstance(each, int) for each in numbers) or min(numbers) < 0:
            raise TypeError("a position without its numbers")
        if not all(isinstance(each, dict) for each in kept) or not {"digest", "state"} <= {
            *position
        }:
            raise TypeError("a position without the beginning of its epoch")


class Opened:
    """A checkpoint in memory, verified. Raises `Damaged`, `NotFound`, `Unsupported`."""

    def __init__(self, saved: Saved) -> None:
        self.saved = saved
        self.manifest: Manifest = saved.manifest
        self.state = self._json()
        self._tensors = {
            name: read_file(saved, name, facts)
            for name, facts in self.manifest.files.items()
            if name.endswith(TENSORS)
        }

    def _json(self) -> dict[str, Any]:
        path = self.saved.path / STATE
        facts = self.manifest.files.get(STATE)
        if facts is None:
            raise Damaged(path, expected=f"{STATE} in the manifest", got="none")
        text = read_text(path, manifests.LONGEST)
        found = manifests.PREFIX + hashlib.sha256(text).hexdigest()
        if len(text) != facts.nbytes:
            raise Damaged(path, expected=f"{facts.nbytes} bytes", got=len(text))
        if found != facts.digest:
            raise Damaged(path, expected=facts.digest, got=found)
        with sane(path):
            return _state(json.loads(text))

    def trees(self) -> dict[str, Tree]:
        """The state of each tracked object, by its name; that of the generators as `rng`."""
        where = str(self.saved.path)
        with sane(self.saved.path):
            return {
                name: unpacked(name, packed, self._fetch, self._names, where)
                for name, packed in self.state["tracked"].items()
            }

    def loaders(self) -> Tree:
        """Where each loader was; empty if the run had none."""
        packed = self.state.get(LOADERS)
        if packed is None:
            return {}
        with sane(self.saved.path):
            tree = unpacked(LOADERS, packed, self._fetch, self._names, str(self.saved.path))
            for each in tree["named"].values():
                _place(each)
        return tree

    @property
    def fingerprint(self) -> Tree:
        """What the run was beside its state; empty in checkpoints of before it was written."""
        return self.state.get(FINGERPRINT) or {}

    def _fetch(self, file: str, tensor: str) -> torch.Tensor:
        try:
            return self._tensors[file][tensor]
        except KeyError:
            raise Damaged(
                self.saved.path / file, expected=f"tensor {tensor!r}", got="none of that name"
            ) from None

    def _names(self, file: str) -> Iterator[str]:
        return iter(self._tensors.get(file, {}))


def read_file(saved: Saved, name: str, facts: FileFacts) -> dict[str, torch.Tensor]:
    """The tensors of one file, each compared with its digest. Raises `Damaged`, `NotFound`."""
    with LocalBlob(saved.path / name) as blob:
        if blob.size != facts.nbytes:
            raise Damaged(blob.name, expected=f"{facts.nbytes} bytes", got=f"{blob.size}")
        header = header_of(blob)
        contents = contents_of(blob, facts)
        records: dict[str, TensorRecord] = contents.root  # type: ignore[assignment]
        digests = {tensor: bytes.fromhex(text[7:]) for tensor, text in facts.tensors.items()}
        if file_digest(header, digests.values()) != facts.digest:
            raise Damaged(blob.name, expected=facts.digest, got="another header")
        arena = Arena(blob.size)
        jobs = [
            _job(blob, arena, records[tensor], tensor, digest) for tensor, digest in digests.items()
        ]
        parallel.run(jobs, parallel.threads_for(blob.size, len(jobs)))
    whole = arena.view(0, blob.size)
    return {tensor: _tensor(whole, record) for tensor, record in records.items()}


def _job(
    blob: LocalBlob, arena: Arena, record: TensorRecord, name: str, expected: bytes
) -> parallel.Job:
    """Read a tensor and hash it piece by piece, while the piece is still in the cache."""
    start, stop = record.storage.offset, record.storage.offset + record.storage.nbytes

    def run() -> None:
        digest = hashlib.sha256()
        for at in range(start, stop, _PIECE):
            piece = arena.view(at, min(at + _PIECE, stop))
            blob.read_into(at, piece)
            digest.update(piece)
        if digest.digest() != expected:
            raise Damaged(
                blob.name,
                expected=manifests.PREFIX + expected.hex(),
                got=manifests.PREFIX + digest.hexdigest(),
                where=f"tensor {name}",
            )

    return run


def _tensor(whole: memoryview, record: TensorRecord) -> torch.Tensor:
    dtype = torch_dtype(record.dtype)
    if not record.storage.nbytes:
        return torch.empty(record.shape, dtype=dtype)
    raw = torch.frombuffer(
        whole, dtype=torch.uint8, count=record.storage.nbytes, offset=record.storage.offset
    )
    if record.storage.offset % record.dtype.itemsize:
        raw = raw.clone()  # a view wants its numbers aligned
    return raw.view(dtype).view(record.shape)
