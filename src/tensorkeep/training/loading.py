"""How the batches of one epoch come: from its beginning, or from the middle of it.

Three ways. `Indexed`, a DataLoader over a map-style dataset: what was consumed is skipped in the
sampler, where the main process loads, or loaded again where workers do, whose generators are only
then where they were. `Stateful`, by the state of its own that a loader or a dataset has.
`Replayed`: everything else, by asking again for what was consumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch.utils.data import DataLoader, IterableDataset

from tensorkeep.errors import BadArgument
from tensorkeep.training.indexed import Indexed
from tensorkeep.training.replaying import Replayed, Stateful

PutBack = Callable[[], None]
Facts = dict[str, Any]


class Loading(Protocol):
    """One epoch of a loader."""

    @property
    def digest(self) -> bytes | None:
        """Of the order of the batches that came; None if it is not known."""

    def fresh(self) -> Iterator[Any]:
        """From the first batch on."""

    def again(self, taken: int, put_back: PutBack) -> Iterator[Any]:
        """From the batch after the first `taken` on; the generators are at the epoch's beginning.

        Calls `put_back` before anything is loaded that was not loaded before. Raises `DoesNotFit`
        if there are not so many.
        """

    def took(self) -> None:
        """A batch came."""

    def cost(self, taken: int) -> int:
        """How many batches are loaded a second time to go on after `taken`."""

    def state(self) -> object:
        """What else is needed to go on from here."""

    def facts(self) -> Facts:
        """What must be the same to go on in the middle of an epoch, by what it is called."""


def is_stateful(target: object) -> bool:
    """Whether it has a state of its own that can be put back."""
    return all(callable(getattr(target, each, None)) for each in ("state_dict", "load_state_dict"))


def is_plain(loader: object) -> bool:
    """Whether it is a DataLoader that iterates as torch's own do."""
    return (
        isinstance(loader, DataLoader)
        and type(loader).__iter__ is DataLoader.__iter__
        and type(loader)._get_iterator is DataLoader._get_iterator
    )


def loading_of(loader: Any, *, state: object, salt: str | None, exact: bool) -> Loading:  # noqa: ANN401
    """`salt`: for samples that are seeded one by one. Raises `BadArgument`."""
    iterable = isinstance(getattr(loader, "dataset", None), IterableDataset)
    # Workers that persist belong to the loader itself, and a copy would not find them.
    plain = is_plain(loader) and not iterable and not loader.persistent_workers
    if plain and not is_stateful(loader):
        return Indexed(loader, salt, exact=exact)
    if salt is not None:
        raise BadArgument(
            "per_sample_seed=True",
            expected="a DataLoader over a map-style dataset, without persistent workers",
            got=f"a {type(loader).__qualname__}{' over an iterable one' if iterable else ''}",
            remedy="Leave it out.",
        )
    if is_stateful(loader):
        return Stateful(loader, loader, state)
    if iterable and is_stateful(loader.dataset) and not loader.num_workers:
        return Stateful(loader.dataset, loader, state)
    return Replayed(loader)
