"""How many values a tree is when what its parts share is written out.

The memo and DUP let a kilobyte spell a list of two whose items are the same list of two, fifty
times over: nothing in memory, and 2**50 values to whoever walks, hashes or prints it. So sizes are
added up, each container's once, and nothing is walked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
MOST = 1 << 62  # sizes are cut off here: numbers of a million digits are an attack of their own


@dataclass(slots=True)
class _Frame(Generic[T]):
    """A container on its way: `at` is its depth, `low` the least that a circle leads back to."""

    node: T
    key: int
    todo: Iterator[T]
    at: int
    total: int = 1
    low: int = MOST


class Sizes(Generic[T]):
    """Sizes of the containers met so far, by identity.

    `parts` gives what lies in a node, None for a leaf, which counts as one. `identity` tells the
    node again; nodes are kept, so that no other object gets their identity meanwhile. After
    `steps` containers no more are entered, for parts that are made anew whenever they are asked.
    """

    def __init__(
        self,
        parts: Callable[[T], Iterable[T] | None],
        identity: Callable[[T], int] = id,
        steps: int = MOST,
    ) -> None:
        self._parts = parts
        self._identity = identity
        self._steps = steps
        self._known: dict[int, tuple[T, int]] = {}
        self.circles = False  # whether any part that was met contains itself

    def of(self, root: T) -> int:
        """The number of nodes below and at `root`, `MOST` at most.

        A lower bound where parts contain themselves: what lies on a circle is one node to
        whatever leads there. A graph of many circles is honest, and nobody can write it out.
        """
        open_: dict[int, int] = {}
        frames = [_Frame(root, 0, iter((root,)), 0, total=0)]
        while True:
            frame = frames[-1]
            inner = self._enter(frame, open_)
            if inner is not None:
                open_[inner.key] = inner.at
                frames.append(inner)
                continue
            frames.pop()
            total = min(frame.total, MOST) if frame.low >= frame.at else 1
            if not frames:
                return total
            del open_[frame.key]
            self._known[frame.key] = (frame.node, total)
            frames[-1].total += total
            frames[-1].low = min(frames[-1].low, frame.low)

    def ways(self, root: T, most: int) -> int:
        """As `of`, exact with circles too, as every way is gone; it stops beyond `most`."""
        parts: dict[int, list[tuple[int, T]] | None] = {}
        kept = [root]  # whatever was asked for its parts keeps its identity
        above = {self._identity(root)}
        levels = [(self._identity(root), iter(self._listed(root) or ()))]
        total = 1
        while levels and total <= most:
            key, todo = levels[-1]
            for inner, node in todo:
                total += 1
                if inner not in parts:
                    parts[inner] = self._listed(node)
                    kept.append(node)
                inside = parts[inner]
                if inside is not None and inner not in above:
                    above.add(inner)
                    levels.append((inner, iter(inside)))
                    break
                if total > most:
                    break
            else:
                levels.pop()
                above.discard(key)
        return total

    def _listed(self, node: T) -> list[tuple[int, T]] | None:
        inside = self._parts(node)
        return None if inside is None else [(self._identity(part), part) for part in inside]

    def _enter(self, frame: _Frame[T], open_: dict[int, int]) -> _Frame[T] | None:
        """Count what is left in `frame` up to its next unknown container, which is the answer."""
        known, identity = self._known, self._identity
        for node in frame.todo:
            key = identity(node)
            if key in known:
                frame.total += known[key][1]
                continue
            if key in open_:
                self.circles = True
                frame.low = min(frame.low, open_[key])
            inside = None if key in open_ or self._steps <= 0 else self._parts(node)
            if inside is not None:
                self._steps -= 1
                return _Frame(node, key, iter(inside), frame.at + 1)
            frame.total += 1
        return None


def inside(value: object) -> Iterable[object] | None:
    """What lies in a plain container; None for anything else."""
    kind = value.__class__
    if kind is dict:
        return [*value, *value.values()]  # type: ignore[misc, attr-defined]
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return value  # type: ignore[return-value]
    return None
