"""What a rename must be: two sides that fit each other, and a name at the end."""

from __future__ import annotations

import re

from tensorkeep.edits import patterns
from tensorkeep.errors import BadArgument


def full(new: str, old: str) -> str:
    """`new`, the name of what was called `old`. Raises `BadArgument` if it has no text."""
    if not new:
        raise BadArgument(
            "rename",
            expected="a name",
            got=f"nothing left of {old!r}",
            remedy="Rename to a text, or drop the tensor.",
        )
    return new


def check_sides(pattern: patterns.Pattern, to: tuple[patterns.Piece, ...]) -> None:
    """Raise `BadArgument` unless `to` can be made of what `pattern` matches."""
    known = [piece.name for piece in pattern.parts if piece.name]
    stars = [sum(piece.name == "*" for piece in side) for side in (pattern.parts, to)]
    wrong = next((piece.name for piece in to if piece.name and piece.name not in known), "")
    if wrong or stars[0] != stars[1]:
        raise BadArgument(
            "rename",
            expected=f"the placeholders of {pattern.text!r}, and as many *",
            got=f"{{{wrong}}}" if wrong and wrong != "*" else f"{stars[1]} *",
            remedy="Use only what the left side has.",
        )
    if any(piece.name and not piece.counts and (piece.factor > 1 or piece.plus) for piece in to):
        raise BadArgument(
            "rename",
            expected="arithmetic on a number such as {n}",
            got="arithmetic on text",
            remedy="Use one letter for a number: {n+1}.",
        )


def of_groups(to: str) -> tuple[patterns.Piece, ...]:
    r"""The template, where `\1` and `\g<name>` are written as `re` does, or as placeholders."""
    return patterns.pieces(re.sub(r"\\(?:([1-9])|g<(\w+)>)", r"{\1\2}", to), "rename")


def check_groups(pattern: str, to: str) -> None:
    """Raise `BadArgument` unless `to` can be made of the groups of a regular expression."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise BadArgument(
            "rename",
            expected="a regular expression",
            got=f"{pattern!r}: {error}",
            remedy="Mend it, or leave out regex for a plain pattern.",
        ) from None
    known = {*map(str, range(1, found.groups + 1)), *found.groupindex}
    for piece in of_groups(to):
        if piece.name and piece.name not in known:
            raise BadArgument(
                "rename",
                expected=f"a group of {pattern!r}",
                got=f"{{{piece.name}}}",
                remedy="Number groups from 1, or name them (?P<name>...).",
            )
