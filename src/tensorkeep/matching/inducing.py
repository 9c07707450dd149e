"""From pairs of names to the fewest moves that turn one of each into the other.

A beam search: moves are proposed by what differs in names that do not agree yet, and weighed by
how much nearer all names come to what they should be. Names that differ in their numbers alone
are looked at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from tensorkeep.matching.moves import NUMBER, Move, numbers, template

_WIDTH, _NARROW = 4, 2
_MANY = 100  # names of different build; more of them and fewer lists are kept in mind
_SAMPLE = 200  # of those that are right, and of those that are not
_ROUNDS = 8
_PROPOSED = 16
_LONGEST = 24
_PARTS = 300  # of both names; comparing takes time with the square of it


@dataclass(frozen=True, slots=True)
class _Kind:
    """Names of one build: a first one as it is now and as it should be, and how many there are."""

    now: str
    goal: str
    count: int


_Kinds = tuple[_Kind, ...]


@dataclass(frozen=True, slots=True)
class _State:
    moves: tuple[Move, ...]
    kinds: _Kinds
    distance: int

    @property
    def rank(self) -> tuple[int, int, list[tuple[int, int]]]:
        return (self.distance, len(self.moves), [move.cost for move in self.moves])


def induce(pairs: Mapping[str, str], banned: frozenset[Move] = frozenset()) -> list[Move]:
    """Moves in order that bring as many names of `pairs` to their goal as can be.

    `banned` are moves that turned out to collide.
    """
    moves: list[Move] = []
    current = list(pairs.items())
    for _ in range(_ROUNDS):
        kinds = _kinds(current)
        wrong = [kind for kind in kinds if kind.now != kind.goal]
        if not wrong:
            break
        # Those that are right already are there to object to a move that would change them.
        right = [kind for kind in kinds if kind.now == kind.goal]
        found = _search((*_sample(wrong), *_sample(right)), banned)
        if not found:
            break
        moves += found
        current = [(_after(now, found), goal) for now, goal in current]
    return moves


def _sample(kinds: Sequence[_Kind]) -> Sequence[_Kind]:
    """At most so many, evenly spread."""
    step = -(-len(kinds) // _SAMPLE) or 1
    return kinds[::step]


def _after(name: str, moves: list[Move]) -> str:
    for move in moves:
        name = move.apply(name)
    return name


def _search(kinds: _Kinds, banned: frozenset[Move]) -> list[Move]:
    """The beam search, on a few hundred kinds of names at most."""
    beam = [_State((), kinds, _total(kinds))]
    best = beam[0]
    width = _WIDTH if len(kinds) < _MANY else _NARROW
    for _ in range(_LONGEST):
        following: dict[tuple[str, ...], _State] = {}
        for state in beam:
            for move in _proposed(state.kinds, banned):
                new = _moved(state, move)
                if new.distance < state.distance:
                    key = tuple(kind.now for kind in new.kinds)
                    known = following.get(key)
                    if known is None or new.rank < known.rank:
                        following[key] = new
        if not following:
            break
        beam = heapq.nsmallest(width, following.values(), key=lambda state: state.rank)
        best = min(best, beam[0], key=lambda state: state.rank)
        if best.distance == 0:
            break
    return list(best.moves)


def _kinds(pairs: Sequence[tuple[str, str]]) -> _Kinds:
    """The first and the last name of each build: a number in a rule must fit both."""
    members: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for now, goal in pairs:
        alike = numbers(now) == numbers(goal)
        key = (template(now), template(goal)) if alike else (now, goal)
        members.setdefault(key, []).append((now, goal))
    found = []
    for group in members.values():
        ends = [group[0], group[-1]] if len(group) > 1 else group
        for at, (now, goal) in enumerate(ends):
            found.append(_Kind(now, goal, len(group) // len(ends) + (at < len(group) % len(ends))))
    return tuple(found)


def _moved(state: _State, move: Move) -> _State:
    kinds, distance = [], 0
    for kind in state.kinds:
        now = move.apply(kind.now)
        kinds.append(kind if now == kind.now else _Kind(now, kind.goal, kind.count))
        distance += kind.count * _distance(now, kind.goal)
    return _State((*state.moves, move), tuple(kinds), distance)


def _total(kinds: _Kinds) -> int:
    return sum(kind.count * _distance(kind.now, kind.goal) for kind in kinds)


def _distance(now: str, goal: str) -> int:
    """Parts that lie between the common beginning and the common end; 0 only for equal names."""
    if now == goal:
        return 0
    a, b = now.split("."), goal.split(".")
    front = 0
    while front < min(len(a), len(b)) and a[front] == b[front]:
        front += 1
    back = 0
    while back < min(len(a), len(b)) - front and a[-1 - back] == b[-1 - back]:
        back += 1
    return 1 + len(a) + len(b) - 2 * (front + back)


def _proposed(kinds: _Kinds, banned: frozenset[Move]) -> list[Move]:
    """The moves that most names ask for."""
    votes: dict[Move, int] = {}
    for kind in kinds:
        if kind.now != kind.goal:
            for move in _asked(kind.now.split("."), kind.goal.split(".")):
                votes[move] = votes.get(move, 0) + kind.count
    usable = (move for move in votes if move not in banned)
    return heapq.nsmallest(_PROPOSED, usable, key=lambda move: (-votes[move], move.cost))


def _asked(now: list[str], goal: list[str]) -> Iterator[Move]:
    """What could be done to `now`, place by place where it differs from `goal`."""
    if len(now) + len(goal) > _PARTS:
        return
    seen = set()
    for tag, a, b, c, d in SequenceMatcher(None, now, goal, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for move in _at(now, goal, a, b, c, d):
            if move.old != move.new and move not in seen:
                seen.add(move)
                yield move


def _at(now: list[str], goal: list[str], a: int, b: int, c: int, d: int) -> Iterator[Move]:
    """Moves that put `goal[c:d]` in place of `now[a:b]`, alone or with what stands beside it."""
    old, new = ".".join(now[a:b]), ".".join(goal[c:d])
    if a == 0 and b < len(now):
        yield Move(old, new, "lead")
    if b == len(now) and old:
        yield Move(old, new, "leaf")
        yield Move(".".join(now), ".".join(goal), "leaf")
    elif old:
        yield Move(old, new, "anywhere")
    # The whole beginning, for what no rule of the middle can say without hitting others.
    if a and b < len(now):
        yield Move(*_open(now[:b], goal[:d]), "lead")
        # With its numbers, for what was done to some modules of a list only.
        yield Move(".".join(now[:b]), ".".join(goal[:d]), "lead")
    if a:
        left = _open(now[a - 1 : b], goal[c - 1 : d]) if c else ("", "")
        if c and left[0] != NUMBER:
            yield Move(*left, "leaf" if b == len(now) else "anywhere")
        elif c and a > 1 and c > 1:
            yield Move(*_open(now[a - 2 : b], goal[c - 2 : d]), "anywhere")
    if b < len(now) and d < len(goal):
        last = b + 1 == len(now)
        yield Move(*_open(now[a : b + 1], goal[c : d + 1]), "leaf" if last else "anywhere")


def _open(now: list[str], goal: list[str]) -> tuple[str, str]:
    """Both as text, their numbers left open if they are the same."""
    old, new = ".".join(now), ".".join(goal)
    if numbers(old) == numbers(new):
        return template(old), template(new)
    return old, new
