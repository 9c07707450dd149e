"""The order of a loader, as it is drawn: counted, remembered in a digest, skipped without data."""

from __future__ import annotations

import hashlib
import random
import sys
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Self

import torch
from torch.utils.data import BatchSampler, DistributedSampler, SequentialSampler
from torch.utils.data.sampler import (
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tensorkeep.errors import BadArgument

# They draw from the process's own generators when an epoch begins, and never later.
_KNOWN = {
    *(BatchSampler, DistributedSampler, SequentialSampler),
    *(RandomSampler, SubsetRandomSampler, WeightedRandomSampler),
}


def chain(loader: Any) -> dict[str, Any]:  # noqa: ANN401
    """The samplers of a loader by where they are; each once."""
    batch = getattr(loader, "batch_sampler", None)
    places = {
        "batch_sampler": batch,
        "sampler": getattr(loader, "sampler", None),
        "batch_sampler.sampler": getattr(batch, "sampler", None),
    }
    made: dict[str, Any] = {}
    for path, sampler in places.items():
        if sampler is not None and all(sampler is not each for each in made.values()):
            made[path] = sampler
    return made


def unknown(loader: Any) -> str:  # noqa: ANN401
    """The class of a sampler that may draw from the global generators; empty if there is none."""
    for sampler in chain(loader).values():
        own = getattr(sampler, "generator", None) is not torch.default_generator
        if type(sampler) not in _KNOWN or not own:
            return type(sampler).__qualname__
    return ""


def key(index: object) -> bytes:
    """The same bytes for the same index, in every process."""
    if isinstance(index, list | tuple):
        try:
            return array("q", index).tobytes()
        except (TypeError, OverflowError):
            return b"(%s)" % b",".join(key(each) for each in index)
    if isinstance(index, str | bytes):
        return repr(index).encode()
    try:
        return b"%d" % index.__index__()  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        return type(index).__qualname__.encode()


class Indices:
    """An index sampler of one epoch that knows what it gave.

    `skip`: how many of its first draws are not given. `digest`: of all that was drawn up to what
    `took` counted last; a loader with workers draws ahead. `watch`: the name of a sampler that is
    refused if it draws from a global generator after its first draw; whatever the training draws
    in between would change its order, and no replay could bring it back.
    """

    def __init__(self, inner: Iterable[Any], *, skip: int = 0, watch: str = "") -> None:
        self.inner, self.skip, self.digest = inner, skip, b""
        self._watch, self._draws, self._latest = watch, 0, b""
        self._ahead: deque[bytes] = deque()
        self._iterator: Iterator[Any] = iter(())

    def __iter__(self) -> Self:
        # At once: a sampler that is no generator function draws here.
        self._iterator = iter(self.inner)
        return self

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def __next__(self) -> Any:  # noqa: ANN401
        self.advance()
        index = self._draw()
        self._ahead.append(self._latest)
        return index

    def advance(self) -> None:
        """Draw what is skipped, now. Raises `StopIteration` if the sampler ends before."""
        while self.skip:
            self._draw()
            self.skip -= 1
            self.digest = self._latest

    def _draw(self) -> Any:  # noqa: ANN401
        before = _states() if self._watch and self._draws else None
        index = next(self._iterator)
        if before is not None and not _same(before, _states()):
            raise BadArgument(
                f"the sampler {self._watch}",
                expected="one that draws from the global generators only when an epoch begins",
                got="one that draws from them between batches, where the training does, too",
                remedy="Give it a generator of its own, or pass exact=False.",
            )
        self._draws += 1
        self._latest = hashlib.blake2b(self._latest + key(index), digest_size=16).digest()
        return index

    def took(self) -> None:
        """A batch came out of the loader: the oldest that was drawn."""
        self.digest = self._ahead.popleft()


def _states() -> tuple[Any, torch.Tensor, Any]:
    numpy = sys.modules.get("numpy")
    own = None if numpy is None else numpy.random.get_state(legacy=True)
    return random.getstate(), torch.get_rng_state(), own


def _same(before: tuple[Any, torch.Tensor, Any], after: tuple[Any, torch.Tensor, Any]) -> bool:
    if before[0] != after[0] or not torch.equal(before[1], after[1]):
        return False
    if before[2] is None or after[2] is None:
        return before[2] is after[2]
    return before[2][2:] == after[2][2:] and bool((before[2][1] == after[2][1]).all())
