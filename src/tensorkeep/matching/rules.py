"""Moves as edits that others can apply, write down and take back; and edits in words."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_lowercase

from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.applying import apply
from tensorkeep.edits.arrays import Filled
from tensorkeep.edits.dequantized import Dequantize
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.names import AddPrefix, Drop, Rename, Strip
from tensorkeep.errors import BadArgument, NameCollision
from tensorkeep.matching.moves import NUMBER, Move, template

_ANY = BY_NAME["uint8"]


def edit_of(move: Move) -> Edit | None:
    """The edit that does the same, or None if no pattern can say it."""
    try:
        if not move.old:
            return AddPrefix(f"{move.new}.")
        if not move.new and NUMBER not in move.old and move.at != "leaf":
            return Strip(f"{move.old}.", anywhere=move.at == "anywhere")
        old, new = lettered(move.old), lettered(move.new)
        front, back = "^" * (move.at == "lead"), "$" * (move.at == "leaf")
        return Rename(front + old + back, new)
    except BadArgument:
        return None


def lettered(text: str) -> str:
    """`{n}` for the first number, `{m}` for the second: a pattern binds each letter once."""
    first, *rest = text.split(NUMBER)
    letters = iter("nm" + ascii_lowercase.replace("n", "").replace("m", ""))
    return first + "".join(f"{{{next(letters, '')}}}{piece}" for piece in rest)


def pattern_of(name: str) -> str:
    """The pattern of the names that are built as `name` is, its numbers left open."""
    return f"^{lettered(template(name))}$"


def applied(edits: list[Edit], names: Mapping[str, object]) -> dict[str, str] | Edit:
    """Each name that is left, and the name it had; or the edit that cannot be applied."""
    filled = Filled(_ANY, (), 0)
    inventory = Inventory("the file", dict.fromkeys(names, filled))
    inventory.origin = {name: (name,) for name in names}
    for edit in edits:
        try:
            edit.apply(inventory)
        except (NameCollision, BadArgument):
            return edit
    try:
        apply(Inventory("the file", {}), edits)
    except BadArgument:
        return edits[-1]  # renames in a circle
    return {name: inventory.origin[name][0] for name in inventory}


def words(edit: object) -> str:
    """What an edit does, in words; names in backticks."""
    if isinstance(edit, Strip):
        return f"strip `{_dotted(edit.prefix)}`" + (" everywhere" if edit.anywhere else "")
    if isinstance(edit, AddPrefix):
        return f"add `{_dotted(edit.prefix)}`"
    if isinstance(edit, Rename):
        return f"rename {_renamed(edit)}"
    if isinstance(edit, Drop):
        return f"leave out `{_starred(edit.pattern)}`"
    if isinstance(edit, Dequantize):
        return f"make {edit.to} of int8 codes and their scales"
    return repr(edit)


def _dotted(prefix: str) -> str:
    return prefix.removesuffix(".") + "."


def _starred(pattern: str) -> str:
    """Where a pattern is tied to one end of a name, a star for the other."""
    if pattern.startswith("^"):
        return pattern[1:-1] if pattern.endswith("$") else f"{pattern[1:]}.*"
    return f"*.{pattern[:-1]}" if pattern.endswith("$") else pattern


def _renamed(edit: Rename) -> str:
    if not edit.regex and edit.pattern.endswith("$"):
        return f"`{_starred(edit.pattern)}` to `*.{edit.to}`"
    if not edit.regex and edit.pattern.startswith("^"):
        return f"`{_starred(edit.pattern)}` to `{edit.to}.*`"
    return f"`{edit.pattern}` to `{edit.to}`"
