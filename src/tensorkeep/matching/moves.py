"""One change of names, as the search tries it: parts of a name give way to others."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

# No part of a name, as "{n}" could be; should one hold it, no move is made of it.
NUMBER = "\0"
# As patterns of edits have it: no leading zeros, and no more digits than fit.
_NUMBER = "(?:0|[1-9][0-9]{0,17})"
_DIGITS = re.compile(rf"(?<![^.]){_NUMBER}(?![^.])")

At = Literal["lead", "anywhere", "leaf"]


@dataclass(frozen=True, slots=True)
class Move:
    """The whole parts `old` become `new`, at the beginning of names, at their end or anywhere.

    Either may be empty. `NUMBER` in both is any number, the same in both, in their order.
    """

    old: str
    new: str
    at: At

    @property
    def cost(self) -> tuple[int, int]:
        """Which of two lists of equal length is simpler: kinds first, then letters."""
        kind = 0 if not self.new else 1 if not self.old else 2 if self.at == "leaf" else 3
        return (kind + (NUMBER in self.old), len(self.old) + len(self.new))

    def apply(self, name: str) -> str:
        """The name after it, or the same name."""
        return _applier(self)(name)


def numbers(name: str) -> list[str]:
    """The parts of a name that are numbers."""
    return _DIGITS.findall(name)


def template(name: str) -> str:
    """The name with its numbers left open."""
    return _DIGITS.sub(NUMBER, name)


@lru_cache(maxsize=4096)
def _applier(move: Move) -> Callable[[str], str]:
    old, new = move.old, move.new
    if old.count(NUMBER) != new.count(NUMBER):
        return lambda name: name
    if NUMBER in old:
        return _by_pattern(move)
    if move.at == "lead":
        if not old:
            return lambda name: f"{new}.{name}"
        start, end = f"{old}.", f"{new}." if new else ""
        return lambda name: end + name[len(start) :] if name.startswith(start) else name
    if move.at == "leaf":
        tail = f".{old}"
        return lambda name: name[: -len(old)] + new if name.endswith(tail) or name == old else name
    pattern = _by_pattern(move)
    return lambda name: pattern(name) if old in name else name


def _by_pattern(move: Move) -> Callable[[str], str]:
    """By regular expression; what is stripped must leave something behind."""
    old = re.escape(move.old).replace(re.escape(NUMBER), f"({_NUMBER})")
    front = {"lead": r"\A", "anywhere": r"(?<![^.])", "leaf": r"(?<![^.])"}[move.at]
    back = {"lead": r"\.", "anywhere": r"(?![^.])", "leaf": r"\Z"}[move.at]
    if not move.new:
        back = r"\.(?=.)"
    pattern = re.compile(front + old + back)
    pieces = move.new.split(NUMBER)
    tail = "." if move.at == "lead" and move.new else ""

    def made(match: re.Match[str]) -> str:
        filled = "".join(
            piece + number for piece, number in zip(pieces, [*match.groups(), ""], strict=True)
        )
        return filled + tail

    return lambda name: pattern.sub(made, name)
