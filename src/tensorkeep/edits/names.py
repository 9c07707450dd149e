"""Edits of names alone: strip a prefix, add one, rename by pattern, drop, keep.

Names are cut on dots only: `strip("module")` leaves `submodule.weight` as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import BadArgument


def _prefix(text: str, what: str) -> str:
    plain = text.removesuffix(".")
    if not plain:
        raise BadArgument(what, expected="a prefix such as module.", got=repr(text))
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
