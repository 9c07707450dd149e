"""Who uses what in a pickle program: which results need a variable, which can stand in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorkeep.pickles.values import Call, Effect, Extension, Global, Import, Persistent, Program

Event = Import | Call | Effect | Persistent

CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def events(program: Program) -> list[Event]:
    """What the program does, in order; a program has no jumps, so that is the order of offsets."""
    if not program.persistents:
        return list(program.trace)
    # Sorted runs: this is a merge, and at one offset there is one opcode.
    return sorted([*program.trace, *program.persistents], key=lambda event: event.offset)


class Uses:
    """How often every object of a program is used, containers walked once.

    `early`: results that lie in what was written before they were made (a list that is passed to
    a call and gets the call's result appended): they cannot be written in place.
    """

    __slots__ = ("_at", "_order", "_seen", "counts", "early")

    def __init__(self, happened: list[Event], value: object) -> None:
        self.counts: dict[int, int] = {}
        self.early: set[int] = set()
        self._seen: set[int] = set()
        self._order = {
            id(event): at
            for at, event in enumerate(happened)
            if type(event) is Call or type(event) is Persistent
        }
        for at, event in enumerate(happened):
            self._at = at
            self._walk(_operands(event))
        self._at = len(happened)
        self._walk((value,))

    def count(self, value: object) -> int:
        """How many places use this very object."""
        return self.counts.get(id(value), 0)

    def _walk(self, roots: Iterable[object]) -> None:
        stack: list[Any] = list(roots)
        counts = self.counts
        while stack:
            value = stack.pop()
            kind = type(value)
            if kind in CONTAINERS:
                # Two million tuples around each other come by here: no call for each.
                at = id(value)
                if at in counts:
                    counts[at] += 1
                else:
                    counts[at] = 1
                    if value:
                        stack += value
                        if kind is dict:
                            stack += value.values()
            elif kind is Call or kind is Persistent:
                self._use(value)
                if self._order.get(id(value), -1) >= self._at:
                    self.early.add(id(value))
            elif kind is Extension:
                self._use(value)
            elif isinstance(value, Global) and value.operands and id(value) not in self._seen:
                self._seen.add(id(value))
                stack.extend(value.operands)

    def _use(self, value: object) -> None:
        self.counts[id(value)] = self.counts.get(id(value), 0) + 1


def _operands(event: Event) -> tuple[object, ...]:
    if isinstance(event, Call):
        return (event.func, event.args, event.kwargs)
    if isinstance(event, Effect):
        return (event.target, *event.args)
    if isinstance(event, Persistent):
        return (event.pid,)
    return (event.target,)
