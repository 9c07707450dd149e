"""The batches of other loaders, from the middle of an epoch on: by their state, or once more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tensorkeep.training.indexed import Facts, PutBack, give_up, length


class Stateful:
    """See `Loading`. `target` has the state, `loader` gives the batches."""

    digest: bytes | None = None

    def __init__(self, target: Any, loader: Any, state: object) -> None:  # noqa: ANN401
        self._target, self._loader, self._state = target, loader, state

    def fresh(self) -> Iterator[Any]:
        """See `Loading`."""
        iterator: Iterator[Any] = iter(self._loader)
        return iterator

    def again(self, taken: int, put_back: PutBack) -> Iterator[Any]:
        """See `Loading`."""
        self._target.load_state_dict(self._state)
        iterator: Iterator[Any] = iter(self._loader)
        put_back()
        return iterator

    def took(self) -> None:
        """See `Loading`."""

    def cost(self, taken: int) -> int:
        """See `Loading`."""
        return 0

    def state(self) -> object:
        """See `Loading`."""
        return self._target.state_dict()

    def facts(self) -> Facts:
        """See `Loading`."""
        return {
            "way": "by its own state",
            "class": type(self._target).__qualname__,
            "batch size": getattr(self._loader, "batch_size", None),
            "workers": getattr(self._loader, "num_workers", 0),
        }


class Replayed:
    """See `Loading`. A sequence is taken up where it was left; others are asked again."""

    digest: bytes | None = None

    def __init__(self, loader: Any) -> None:  # noqa: ANN401
        self._loader = loader
        self._sequence = isinstance(loader, Sequence)

    def fresh(self) -> Iterator[Any]:
        """See `Loading`."""
        iterator: Iterator[Any] = iter(self._loader)
        return iterator

    def again(self, taken: int, put_back: PutBack) -> Iterator[Any]:
        """See `Loading`."""
        if self._sequence:
            put_back()
            return (self._loader[at] for at in range(taken, len(self._loader)))
        iterator: Iterator[Any] = iter(self._loader)
        for _ in itertools.repeat(None, taken):
            give_up(iterator, taken)
        put_back()
        return iterator

    def took(self) -> None:
        """See `Loading`."""

    def cost(self, taken: int) -> int:
        """See `Loading`."""
        return 0 if self._sequence else taken

    def state(self) -> object:
        """See `Loading`."""
        return None

    def facts(self) -> Facts:
        """See `Loading`."""
        return {
            "way": "a sequence" if self._sequence else "by asking again",
            "batches": length(self._loader),
            "batch size": getattr(self._loader, "batch_size", None),
            "workers": getattr(self._loader, "num_workers", 0),
        }
