"""Changes of the beginnings of names, proposed by the ends that names of both sides share."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tensorkeep.matching.catalogue import GENERIC, LEADING
from tensorkeep.matching.moves import Move, numbers, template

# Votes are cast by all names, and counted exactly for the changes that most of them ask for.
_TRIED = 10
# Places that one end is looked up in: an end that more names share says nothing.
_PLACES = 4
# Different ends that agree before they are more than chance (a `dense` with weight and bias is in
# every head), of modules that have names; twice as many of those that have numbers (`0.weight`).
_ENDS = 4

# Characters in all ends of a name together: each is a text of its own.
_LONGEST = 8192

Shapes = Mapping[str, tuple[int, ...]]
_Places = dict[tuple[object, ...], list[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Front:
    """Names that begin with `old` (whole parts, `NUMBER` for numbers) begin with `new` instead."""

    old: str
    new: str

    def apply(self, name: str) -> str:
        """The name after it, or the same name."""
        return Move(self.old, self.new, "lead").apply(name) if self.old or self.new else name

    def is_named(self, pairs: Mapping[str, str], left: int, right: int) -> bool:
        """Whether more than shapes speak for `pairs`, of `left` and `right` names in all.

        Known wrappers, a wrapper around everything, or ends of names that are no chance.
        """
        known = all(part in LEADING for part in (*_parts(self.old), *_parts(self.new)))
        one_sided = not (self.old and self.new)
        if one_sided and (known or len(pairs) == left or len(pairs) == right):
            return True
        ends = {_end(name, to) for name, to in pairs.items()}
        telling = {part for end in ends for part in end.split(".")[:-1] if not part.isdigit()}
        few = _ENDS if len(telling - GENERIC) > 1 else 2 * _ENDS
        return len(ends) >= few

    @property
    def open(self) -> Front:
        """The same with its numbers left open."""
        return Front(template(self.old), template(self.new))

    def explains(self, other: Front) -> bool:
        """Whether it does to the names of `other` what `other` does."""
        return self == other or self.apply(f"{other.old}.x") == f"{other.new}.x"


def _parts(text: str) -> list[str]:
    return text.split(".") if text else []


def _end(one: str, two: str) -> str:
    """The parts at the end that both share."""
    a, b = one.split("."), two.split(".")
    size = 0
    while size < min(len(a), len(b)) and a[-1 - size] == b[-1 - size]:
        size += 1
    return ".".join(a[len(a) - size :])


def fronts(left: Shapes, right: Shapes, more: int = 0) -> list[tuple[Front, dict[str, str]]]:
    """The changes worth looking at, each with all it pairs, those that pair most first.

    Ten of them, and as many `more`.
    """
    votes = Counter(_votes(left, right))
    asked = heapq.nlargest(_TRIED + more, votes.items(), key=lambda item: item[1])
    tried = [(front := Front(*change), _paired(front, left, right)) for change, _ in asked]
    found = [one for one in tried if one[1]]
    # Of changes that pair the same, the shorter says it better.
    return sorted(found, key=lambda one: (-len(one[1]), len(one[0].old) + len(one[0].new)))


def _paired(front: Front, left: Shapes, right: Shapes) -> dict[str, str]:
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for name, shape in left.items():
        new = front.apply(name)
        if new != name and right.get(new) == shape and new not in taken:
            pairs[name] = new
            taken.add(new)
    return pairs


def _votes(left: Shapes, right: Shapes) -> Iterator[tuple[str, str]]:
    """For each name of `left` the change that its longest end asks for."""
    places = _places(right)
    for name, shape in left.items():
        sequence = tuple(numbers(name))
        for front, end in _cuts(name):
            alike = places.get((end, shape, sequence))
            found = places.get((end, shape))
            for other, to in alike or found or ():
                if alike and numbers(front) == numbers(other):
                    yield template(front), template(other)
                elif to != name:
                    yield front, other
            if found:
                break


def _places(names: Shapes) -> _Places:
    """Where each end occurs: by shape, and by shape and all numbers of the name."""
    places: _Places = {}
    for name, shape in names.items():
        sequence = tuple(numbers(name))
        for front, end in _cuts(name):
            for key in ((end, shape), (end, shape, sequence)):
                known = places.setdefault(key, [])
                if len(known) < _PLACES:
                    known.append((front, name))
    return places


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Beginning and end, the longest end first; of a name that no model has, the whole only."""
    yield "", name
    if len(name) * name.count(".") > _LONGEST:
        return
    at = name.find(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.find(".", at + 1)
