"""The batches of a DataLoader over a map-style dataset, from the middle of an epoch on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from tensorkeep.errors import DoesNotFit
from tensorkeep.training.indices import Indices, chain, unknown
from tensorkeep.training.seeding import SeededDataset

PutBack = Callable[[], None]
Facts = dict[str, Any]


class Indexed:
    """See `loading.Loading`. A copy of the loader has our sampler; it is left alone."""

    def __init__(self, loader: DataLoader[Any], salt: str | None, *, exact: bool) -> None:
        self._loader, self._salt, self._watch = loader, salt, unknown(loader) if exact else ""
        self._indices = Indices(())

    @property
    def digest(self) -> bytes | None:
        """See `Loading`."""
        return self._indices.digest

    def fresh(self) -> Iterator[Any]:
        """See `Loading`."""
        return self._begun(0)

    def _begun(self, skip: int, **others: object) -> Iterator[Any]:
        # A copy's __dict__, because a DataLoader refuses to have these set.
        made = copy.copy(self._loader)
        which = "sampler" if made.batch_sampler is None else "batch_sampler"
        self._indices = Indices(getattr(made, which), skip=skip, watch=self._watch)
        made.__dict__.update({which: self._indices}, **others)
        if self._salt is not None:
            made.__dict__["dataset"] = SeededDataset(made.dataset, self._salt)
        return iter(made)

    def again(self, taken: int, put_back: PutBack) -> Iterator[Any]:
        """See `Loading`."""
        loads = self.cost(taken)
        try:
            if self._ended(taken):
                iterator = self._past(taken)
            else:
                iterator = self._begun(taken - loads)
                self._indices.advance()
        except StopIteration:
            raise _shorter(taken) from None
        for _ in range(loads):
            give_up(iterator, taken)
            self.took()
        put_back()
        return iterator

    def _past(self, taken: int) -> Iterator[Any]:
        """No worker need start to say that nothing is left; the sampler says so."""
        self._begun(taken, num_workers=0, prefetch_factor=None, timeout=0)
        self._indices.advance()
        if next(self._indices, self) is not self:  # not `for`, which would begin it again
            raise DoesNotFit(
                "the sampler",
                expected=f"the {taken} batches that the loader says it has",
                got="more",
                remedy="Let its __len__ be what it gives.",
            )
        return iter(())

    def _ended(self, taken: int) -> bool:
        return bool(self._loader.num_workers) and length(self._loader) == taken

    def cost(self, taken: int) -> int:
        """See `Loading`."""
        again = self._loader.num_workers and self._salt is None and not self._ended(taken)
        return taken if again else 0

    def took(self) -> None:
        """See `Loading`."""
        self._indices.took()

    def state(self) -> object:
        """See `Loading`."""
        return None

    def facts(self) -> Facts:
        """See `Loading`."""
        loader = self._loader
        facts = {
            "way": "map-style",
            "batch size": loader.batch_size,
            "drop_last": loader.drop_last,
            "length of the dataset": length(loader.dataset),
            "batches": length(loader),
            "sampler": type(loader.sampler).__qualname__,
            "batch sampler": type(loader.batch_sampler).__qualname__,
            "per_sample_seed": self._salt is not None,
        }
        if self._salt is None:
            facts["workers"] = loader.num_workers
        if any(getattr(each, "generator", None) is not None for each in chain(loader).values()):
            # The state of such a generator is that after the batches that were drawn ahead.
            facts["drawn ahead"] = loader.num_workers * (loader.prefetch_factor or 0)
        return facts


def length(value: Any) -> int | None:  # noqa: ANN401
    """None if it has none."""
    try:
        return len(value)
    except TypeError:
        return None


def give_up(iterator: Iterator[Any], taken: int) -> None:
    """The next batch; one of `taken`. Raises `DoesNotFit`."""
    try:
        next(iterator)
    except StopIteration:
        raise _shorter(taken) from None


def _shorter(taken: int) -> DoesNotFit:
    return DoesNotFit(
        "the loader",
        expected=f"{taken} batches, which the run had consumed of this epoch",
        got="fewer",
        remedy="Build the dataset and the sampler as the run did.",
    )
