"""Patterns of names: what a rule matches, and the name that it makes of it.

A pattern without `*` is a run of whole parts (what lies between dots), wherever it stands in a
name; `^` before it ties it to the beginning, `$` after it to the end. A pattern with `*` is the
whole name; `*` is any text. `{n}`, one letter, is a whole number without leading zeros; `{name}`,
more letters, any text without dots. Numbers may be counted on: `{n+1}`, `{n-12}`, `{n*2+1}`, on
either side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from tensorkeep.errors import BadArgument

_PIECE = re.compile(r"\{(\w+)(?:\*([0-9]{1,9}))?([+-][0-9]{1,9})?\}|(\*)|([^{}*]+)|(.)", re.DOTALL)
_NUMBER = "(?:0|[1-9][0-9]{0,17})"
_BEGIN, _END = r"(?<![^.])(?<!\\\.)", r"(?![^.])"
# Each further star multiplies the places to try by the length of a name, and names come from files.
_MOST_STARS, _LONGEST = 3, 500


@dataclass(frozen=True, slots=True)
class Piece:
    """Text, or with `name` a placeholder ("*" for a star) for `factor` times a number `plus`."""

    text: str = ""
    name: str = ""
    factor: int = 1
    plus: int = 0

    @property
    def counts(self) -> bool:
        """Whether it stands for a whole number."""
        return len(self.name) == 1 and self.name != "*"


def pieces(text: str, what: str) -> tuple[Piece, ...]:
    """`text` cut into text, stars and placeholders. Raises `BadArgument`, naming `what`."""
    found = []
    for name, factor, plus, star, plain, odd in _PIECE.findall(text):
        if odd or (name and factor and not int(factor)):
            raise BadArgument(
                what,
                expected="placeholders such as {n}, {n+1}, {n*2+1} or {name}",
                got=repr(text),
                remedy="A name with braces in it is written as a regular expression.",
            )
        found.append(Piece(plain, name or star, int(factor or 1), int(plus or 0)))
    return tuple(found)


def filled(template: tuple[Piece, ...], found: Mapping[str, str], stars: Iterator[str]) -> str:
    """The name that `template` makes. Raises `BadArgument` for a number below 0."""
    return "".join(_fill(piece, found, stars) for piece in template)


def _fill(piece: Piece, found: Mapping[str, str], stars: Iterator[str]) -> str:
    if not piece.name:
        return piece.text
    text = next(stars) if piece.name == "*" else found[piece.name]
    if piece.factor == 1 and not piece.plus:
        return text
    number = int(text) * piece.factor + piece.plus if re.fullmatch(_NUMBER, text) else -1
    if number < 0:
        raise BadArgument(
            "a number in a name",
            expected="a whole number from 0",
            got=f"{text}{f'*{piece.factor}' if piece.factor > 1 else ''}{piece.plus:+}",
            remedy="Count so that no number falls below 0, or match fewer names.",
        )
    return str(number)


@dataclass(frozen=True)
class Pattern:
    """What `text` says. `greedy` and `lazy` are the same expression, tried from both ends."""

    text: str
    parts: tuple[Piece, ...]
    whole: bool
    greedy: re.Pattern[str]
    lazy: re.Pattern[str]

    def matches(self, name: str) -> bool:
        """Whether the rule is for `name`."""
        self._check_length(name)
        return any(self._bound(match) is not None for match in self.greedy.finditer(name))

    def renamed(self, name: str, template: tuple[Piece, ...]) -> str:
        """`name` with `template` in place of what matches. Raises `BadArgument` if two ways are."""
        self._check_length(name)
        new = self.greedy.sub(lambda match: self._made(match, template), name)
        if self.lazy is not self.greedy:
            other = self.lazy.sub(lambda match: self._made(match, template), name)
            if new != other:
                raise BadArgument(
                    f"pattern {self.text!r}",
                    expected=f"one way to match {name!r}",
                    got=f"two: it would be {new!r} or {other!r}",
                    remedy="Use fewer * or put more of the name between them.",
                )
        return new

    def _check_length(self, name: str) -> None:
        if len(name) > _LONGEST and sum(piece.name == "*" for piece in self.parts) > 1:
            raise BadArgument(
                f"pattern {self.text!r}",
                expected=f"names of at most {_LONGEST} characters for more than one *",
                got=f"one of {len(name)}",
                remedy="Use one * only.",
            )

    def _made(self, match: re.Match[str], template: tuple[Piece, ...]) -> str:
        bound = self._bound(match)
        if bound is None:
            return match[0]
        taken = zip(self._wild(), match.groups(), strict=True)
        return filled(template, bound, iter([text for piece, text in taken if piece.name == "*"]))

    def _wild(self) -> list[Piece]:
        return [piece for piece in self.parts if piece.name]

    def _bound(self, match: re.Match[str]) -> dict[str, str] | None:
        """What each placeholder stands for, or None if it would stand for two things."""
        found: dict[str, str] = {}
        for piece, text in zip(self._wild(), match.groups(), strict=True):
            value = text
            if piece.counts:
                number, rest = divmod(int(text) - piece.plus, piece.factor)
                if rest or number < 0:
                    return None
                value = str(number)
            if piece.name != "*" and found.setdefault(piece.name, value) != value:
                return None
        return found


@lru_cache(maxsize=512)
def compiled(text: str) -> Pattern:
    """The pattern that `text` writes down. Raises `BadArgument`."""
    begins, ends = text.startswith("^"), text.endswith("$")
    parts = pieces(text[begins : len(text) - ends], "a pattern")
    stars = sum(piece.name == "*" for piece in parts)
    wild = [bool(piece.name) for piece in parts]
    if not parts or stars > _MOST_STARS or any(a and b for a, b in pairwise(wild)):
        raise BadArgument(
            "a pattern",
            expected=f"parts of a name, at most {_MOST_STARS} *, text between placeholders",
            got=repr(text),
            remedy="Use fewer *, put text between placeholders, or a regular expression.",
        )
    begin = r"\A" if stars or begins else _BEGIN
    end = r"\Z" if stars or ends else _END
    greedy = re.compile(begin + "".join(_expression(p, "") for p in parts) + end, re.DOTALL)
    lazy = greedy
    if sum(bool(piece.name) and not piece.counts for piece in parts) > 1:
        lazy = re.compile(begin + "".join(_expression(p, "?") for p in parts) + end, re.DOTALL)
    return Pattern(text, parts, bool(stars), greedy, lazy)


def _expression(piece: Piece, lazy: str) -> str:
    if not piece.name:
        return re.escape(piece.text)
    if piece.name == "*":
        return f"(.*{lazy})"
    return f"({_NUMBER})" if piece.counts else f"([^.]+{lazy})"


def leads_back(old: Pattern, new: Pattern) -> bool:
    """Whether `new` finds in a name all that `old` put there, in one way.

    Both sides hold the same placeholders, once each; a part of a name holds one text at most that
    could be longer or shorter; and no two places that `new` matches could overlap.
    """
    names = [sorted(piece.name for piece in side.parts if piece.name) for side in (old, new)]
    if names[0] != names[1] or len({*names[0]}) < len(names[0]) or old.whole != new.whole:
        return False
    parts = _cut(new.parts)
    if any(sum(bool(p.name) and not p.counts for p in part) > 1 for part in parts):
        return False
    return new.whole or not any(
        all(_alike(a, b) for a, b in zip(parts, parts[-size:], strict=False))
        for size in range(1, len(parts))
    )


def _cut(parts: tuple[Piece, ...]) -> list[list[Piece]]:
    """The pieces of each part of a name."""
    found: list[list[Piece]] = [[]]
    for piece in parts:
        for at, text in enumerate([""] if piece.name else piece.text.split(".")):
            if at:
                found.append([])
            if piece.name or text:
                found[-1].append(piece if piece.name else Piece(text))
    return found


def _alike(one: list[Piece], two: list[Piece]) -> bool:
    """Whether both could be the same part of a name."""
    for a, b in ((one, two), (two, one)):
        if not any(piece.name for piece in a):
            plain = "".join(piece.text for piece in a)
            return bool(re.fullmatch("".join(_expression(p, "") for p in b), plain))
    return True
