"""Edits of names alone: strip a prefix, add one, rename by pattern, drop, keep.

Names are cut on dots only: `strip("module")` leaves `submodule.weight` as it is. How patterns are
written: `patterns`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from tensorkeep.edits import patterns
from tensorkeep.edits._renaming import check_groups, check_sides, full, of_groups
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import BadArgument


def _prefix(text: str, what: str) -> str:
    plain = text.removesuffix(".")
    if not plain:
        raise BadArgument(
            what,
            expected="a prefix such as module.",
            got=repr(text),
            remedy="Give the first parts of the names.",
        )
    return plain + "."


@dataclass(frozen=True)
class Strip:
    """Take `prefix` off the names that begin with it; with `anywhere`, out of every place.

    `prefix`: whole parts of a name, with or without the last dot.
    """

    prefix: str
    anywhere: bool = False
    op: ClassVar[str] = "strip"

    def __post_init__(self) -> None:
        _prefix(self.prefix, "strip")

    def apply(self, inventory: Inventory) -> None:
        """Raises `NameCollision`."""
        prefix = _prefix(self.prefix, "strip")
        if not inventory.rename(lambda name: self._stripped(name, prefix)):
            inventory.notes.append(f"no name has {prefix!r} to strip")

    def _stripped(self, name: str, prefix: str) -> str:
        if not self.anywhere:
            return name.removeprefix(prefix) or name
        dotted = f".{name}"
        while (found := dotted.find(f".{prefix}")) >= 0 and len(dotted) > len(prefix) + found + 1:
            dotted = dotted[: found + 1] + dotted[found + 1 + len(prefix) :]
        return dotted[1:]

    def inverse(self) -> AddPrefix | None:
        """Only where every name had the prefix: adding it puts it before all."""
        return None if self.anywhere else AddPrefix(self.prefix)


@dataclass(frozen=True)
class AddPrefix:
    """Put `prefix` before every name."""

    prefix: str
    op: ClassVar[str] = "add-prefix"

    def __post_init__(self) -> None:
        _prefix(self.prefix, "add-prefix")

    def apply(self, inventory: Inventory) -> None:
        """Never collides."""
        prefix = _prefix(self.prefix, "add-prefix")
        inventory.rename(lambda name: prefix + name)

    def inverse(self) -> Strip:
        """Strip it."""
        return Strip(self.prefix)


@dataclass(frozen=True)
class Rename:
    """Put `to` where `pattern` matches.

    `pattern`: see `patterns`; with `regex` a regular expression, searched for in the whole name,
    whose groups are `{1}` and `{name}` in `to`, or as `re` writes them. `to`: with placeholders
    of `pattern` and as many `*`; empty takes the matched parts out.
    """

    pattern: str
    to: str
    regex: bool = False
    op: ClassVar[str] = "rename"

    def __post_init__(self) -> None:
        if self.regex:
            check_groups(self.pattern, self.to)
        else:
            check_sides(*self._sides())

    def _sides(self) -> tuple[patterns.Pattern, tuple[patterns.Piece, ...]]:
        """Without the dots at the ends: `module.` means the part, as it does to `Strip`."""
        if "*" in self.pattern:
            return patterns.compiled(self.pattern), patterns.pieces(self.to, "rename")
        return patterns.compiled(self.pattern.strip(".")), patterns.pieces(
            self.to.strip("."), "rename"
        )

    def apply(self, inventory: Inventory) -> None:
        """Raises `NameCollision`, and `BadArgument` for a name without text or in two ways."""
        if not inventory.rename(self._by_regex if self.regex else self._by_pattern):
            inventory.notes.append(f"no name matches {self.pattern!r} to rename")

    def _by_pattern(self, name: str) -> str:
        pattern, to = self._sides()
        new = pattern.renamed(name, to)
        if not to and new != name:
            new = ".".join(part for part in new.split(".") if part)
        return full(new, name)

    def _by_regex(self, name: str) -> str:
        to = of_groups(self.to)

        def made(match: re.Match[str]) -> str:
            groups = {str(at): text or "" for at, text in enumerate(match.groups(), 1)}
            named = {key: text or "" for key, text in match.groupdict().items()}
            return patterns.filled(to, groups | named, iter(()))

        return full(re.sub(self.pattern, made, name), name)

    def inverse(self) -> Rename | None:
        """The same with its sides changed, if what it would match is only what this put there.

        Names that had the new form before are not told apart.
        """
        pattern, begins = self.pattern.removeprefix("^"), self.pattern.startswith("^")
        pattern, ends = pattern.removesuffix("$"), pattern.endswith("$")
        if self.regex or not self.to or self.to.startswith("^") or self.to.endswith("$"):
            return None
        try:
            back = Rename("^" * begins + self.to + "$" * ends, pattern)
        except BadArgument:
            return None
        return back if patterns.leads_back(self._sides()[0], back._sides()[0]) else None


def renaming(text: str) -> Rename:
    """The rename that `FROM=TO` means. Raises `BadArgument`."""
    old, equals, new = text.partition("=")
    if not equals or not old:
        raise BadArgument(
            "--rename",
            expected="FROM=TO",
            got=repr(text),
            remedy="Write what is there, =, and what is to be there.",
        )
    return Rename(old, new)


@dataclass(frozen=True)
class Swap:
    """Exchange `first` and `second`, runs of whole parts, wherever they stand, in one step."""

    first: str
    second: str
    op: ClassVar[str] = "swap"

    def __post_init__(self) -> None:
        one, two = self._parts()
        # A part in both could belong to either, and the way back would be another.
        if not all([*one, *two]) or len({*one, *two}) < len(one) + len(two) or "*" in self._text():
            raise BadArgument(
                "swap",
                expected="two runs of parts that share no part",
                got=self._text(),
                remedy="Give whole parts without * that differ in every part.",
            )

    def _text(self) -> str:
        return f"{self.first!r} and {self.second!r}"

    def _parts(self) -> tuple[list[str], list[str]]:
        return self.first.strip(".").split("."), self.second.strip(".").split(".")

    def apply(self, inventory: Inventory) -> None:
        """Raises `NameCollision`."""
        first, second = (".".join(parts) for parts in self._parts())
        either = re.compile(rf"(?<![^.])(?:({re.escape(first)})|{re.escape(second)})(?![^.])")
        if not inventory.rename(lambda name: either.sub(lambda m: second if m[1] else first, name)):
            inventory.notes.append(f"no name has {first!r} or {second!r} to swap")

    def inverse(self) -> Swap:
        """The same again."""
        return self


@dataclass(frozen=True)
class Drop:
    """Leave out the tensors whose name matches `pattern`, written as for `Rename`."""

    pattern: str
    op: ClassVar[str] = "drop"

    def __post_init__(self) -> None:
        patterns.compiled(self.pattern)

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for a name too long to match."""
        matches = patterns.compiled(self.pattern).matches
        if not inventory.drop([name for name in inventory if matches(name)]):
            inventory.notes.append(f"no name matches {self.pattern!r} to drop")

    def inverse(self) -> None:
        """None: they are gone."""


@dataclass(frozen=True)
class Keep:
    """Leave out all tensors but those whose name matches `pattern`, or one of several."""

    pattern: str | tuple[str, ...]
    op: ClassVar[str] = "keep"

    def __post_init__(self) -> None:
        if not self.pattern:
            raise BadArgument(
                "keep",
                expected="at least one pattern",
                got="none",
                remedy="Give a pattern, or leave the edit out.",
            )
        for text in self._texts():
            patterns.compiled(text)

    def _texts(self) -> tuple[str, ...]:
        return (self.pattern,) if isinstance(self.pattern, str) else self.pattern

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for a name too long to match."""
        kept: set[str] = set()
        for text in self._texts():
            matches = patterns.compiled(text).matches
            found = [name for name in inventory if matches(name)]
            kept.update(found)
            if not found:
                inventory.notes.append(f"no name matches {text!r} to keep")
        inventory.drop([name for name in inventory if name not in kept])

    def inverse(self) -> None:
        """None: the others are gone."""
