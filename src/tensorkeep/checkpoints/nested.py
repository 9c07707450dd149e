"""How the value of a checkpoint is nested: its containers, tensors and other values, by path.

The index forgets what the containers are; whoever writes a checkpoint again asks for them here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path, Walk, is_key
from tensorkeep.facts import Limits
from tensorkeep.formats.assembled import Module
from tensorkeep.formats.contents import Items, Lens, TensorRecord
from tensorkeep.pickles import Call, Global

# What calls make that `Items` and lists stand for.
_CALLED = {"builtins.set": "set", "builtins.frozenset": "frozenset"}


@dataclass(frozen=True, slots=True)
class Box:
    """A container: `kind` is "dict", "list", "tuple", "set", "module", or the name of a class."""

    kind: str
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the tensor `name` of the checkpoint stands."""

    name: str


@dataclass(slots=True)
class Nesting:
    """`steps`: what stands under each path, a `Box`, a `Slot` or a value, in the file's order.

    `described` are paths of containers with keys that no plain value is: such a key is words.
    """

    steps: list[tuple[Path, object]] = field(default_factory=list)
    described: list[Path] = field(default_factory=list)


def nesting(ckpt: Checkpoint, limits: Limits | None = None) -> Nesting:
    """Walk the value of `ckpt` as its index did. Raises `LimitExceeded` as opening it did."""
    walk = _Recorder(ckpt, limits or Limits())
    walk.run(ckpt.contents.root, ckpt.contents.lens)
    return walk.found


class _Recorder(Walk):
    """The walk of the index, which tells what it meets: so tensors come in the same order."""

    tells = True

    def __init__(self, ckpt: Checkpoint, limits: Limits) -> None:
        super().__init__(limits, ckpt.path, ckpt.contents)
        self.found = Nesting()
        self.names = iter(ckpt.tensors)

    def _children(
        self, path: Path, value: object, look: Lens
    ) -> list[tuple[object, object]] | None:
        if isinstance(value, Items | dict):
            keys = (key for key, _ in value.pairs) if isinstance(value, Items) else iter(value)
            if not all(map(is_key, keys)):
                self.found.described.append(path)
        return super()._children(path, value, look)

    def _keep(
        self,
        path: Path,
        inside: dict[object, object],
        parent: dict[object, object],
        count: int,
        value: object,
        raw: object,
    ) -> None:
        super()._keep(path, inside, parent, count, value, raw)
        attributes = self.index.attributes.get(path, {}) if isinstance(value, Items) else {}
        self.found.steps.append((path, Box(_kind(value, raw), attributes)))

    def _leaf(self, path: Path, value: object, parent: dict[object, object]) -> None:
        super()._leaf(path, value, parent)
        is_tensor = isinstance(value, TensorRecord)
        self.found.steps.append((path, Slot(next(self.names)) if is_tensor else value))


def _kind(value: object, raw: object) -> str:
    if isinstance(value, Items):
        return value.type
    if isinstance(value, Module):
        return "module"
    if isinstance(raw, Call) and isinstance(raw.func, Global):
        return _CALLED.get(raw.func.qualified, type(value).__name__)
    return type(value).__name__
