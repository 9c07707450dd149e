"""Wrappers that stand in the names of one side and not of the other, cut only on dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorkeep.matching.catalogue import ANYWHERE, LEADING

# Ways to read the names of one side. Nobody stacks so many wrappers, and each costs a look at all.
_MOST = 12


@dataclass(frozen=True, slots=True)
class Way:
    """The names of one side without some wrappers; `dropped` says which, outermost first."""

    names: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def align(left: Sequence[str], right: Sequence[str]) -> tuple[Way, Way]:
    """The fewest wrappers to take off either side so that most names are shared.

    Nothing is taken off unless that makes names shared that were not. The names of a `Way` stand
    in the order of those given and are all different.
    """
    if set(left) == set(right):
        return Way(tuple(left)), Way(tuple(right))
    ours, theirs = ([(frozenset(w.names), w) for w in _ways(side)] for side in (left, right))
    rated = [
        (len(a & b), -len(one.dropped) - len(other.dropped), one, other)
        for a, one in ours
        for b, other in theirs
    ]
    best = max(rated, key=lambda row: row[:2])
    return best[2:]


def _ways(names: Sequence[str]) -> list[Way]:
    """As they are, and without what could be wrappers, one more each time."""
    found = [Way(tuple(names))]
    for token in sorted(ANYWHERE):
        found += _without(found[-1], token)
    for start in list(found):
        way = _unwrapped(start)
        while way is not None and len(found) <= _MOST:
            found.append(way)
            way = _unwrapped(way)
    return found


def _without(way: Way, token: str) -> list[Way]:
    """`way` without `token` wherever it is a part of a name, if it is one and leaves no twins."""
    names = tuple(".".join(part for part in name.split(".") if part != token) for name in way.names)
    if names == way.names or len(set(names)) < len(names) or "" in names:
        return []
    return [Way(names, (*way.dropped, f"{token}."))]


def _unwrapped(way: Way) -> Way | None:
    """`way` without the wrapper that stands before all of its names, or None."""
    token = way.names[0].partition(".")[0] if way.names else ""
    prefix = f"{token}."
    if token not in LEADING or not all(name.startswith(prefix) for name in way.names):
        return None
    return Way(tuple(name[len(prefix) :] for name in way.names), (*way.dropped, prefix))
