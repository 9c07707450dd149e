"""A list of edits applied, taken back, and told."""

from __future__ import annotations

from collections.abc import Sequence

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.names import Rename
from tensorkeep.errors import BadArgument, TensorkeepError


def apply(inventory: Inventory, edits: Sequence[Edit]) -> None:
    """Change `inventory` by each edit in turn. Raises what they raise, naming the edit."""
    _check_cycles(edits)
    for number, edit in enumerate(edits, 1):
        if not hasattr(edit, "apply") or not hasattr(edit, "op"):
            raise BadArgument(
                "edits",
                expected="edits such as Rename",
                got=repr(edit),
                remedy="Take them from tensorkeep.edits, or write each on one line as a text.",
            )
        try:
            edit.apply(inventory)
        except TensorkeepError as error:
            raise type(error)(
                error.subject,
                expected=error.expected,
                got=error.got,
                where=f"edit {number}, {edit.op}" + (f", {error.where}" if error.where else ""),
                remedy=error.remedy,
            ) from error


def _check_cycles(edits: Sequence[Edit]) -> None:
    """Refuse renames in a circle: one after the other they would not exchange the names.

    `a` to `b` and then `b` to `a` leaves no `b`: what was `a` comes back, and what was `b` is one.
    """
    rules = [(e.pattern, e.to) for e in edits if isinstance(e, Rename) and not e.regex]
    for start in dict(rules):
        now = start
        for pattern, to in rules:
            if now != pattern or pattern == to:
                continue
            if to == start:
                raise BadArgument(
                    "renames in a circle",
                    expected="names that do not come back one after the other",
                    got=f"{pattern!r} to {to!r} where {to!r} was renamed before",
                    remedy='Exchange two names with swap (op = "swap" in a recipe).',
                )
            now = to


def invert(edits: Sequence[Edit], inventory: Inventory | None = None) -> tuple[Edit, ...]:
    """The edits that take `edits` back, last first.

    With `inventory`, to which `edits` would be applied, it is tried that all its names come back:
    a rename cannot tell names that had the new form before. Raises `BadArgument` if an edit has
    no inverse or a name does not come back; `inventory` is not changed.
    """
    back = []
    for number, edit in reversed(list(enumerate(edits, 1))):
        one = edit.inverse()
        if one is None:
            raise BadArgument(
                f"edit {number}, {edit.op}",
                expected="an edit that can be taken back",
                got="one that forgets what it changes",
                remedy="Keep the checkpoint that it is applied to.",
            )
        back.append(one)
    if inventory is not None:
        _try(inventory, edits, back)
    return tuple(back)


def _try(inventory: Inventory, edits: Sequence[Edit], back: Sequence[Edit]) -> None:
    tried = inventory.copy()
    apply(tried, edits)
    for edit in back:
        edit.apply(tried)
    wrong = [name for name, array in inventory.tensors.items() if tried.tensors.get(name) != array]
    if wrong or len(tried) != len(inventory):
        raise BadArgument(
            inventory.subject,
            expected="every name back",
            got=f"{len(wrong)} names that are not, {wrong[0]!r} first" if wrong else "more names",
            remedy="Rename to a form that no name had before.",
        )


def effect(after: Inventory, before: Inventory) -> str:
    """A few words: what became of the tensors `before`. Empty if nothing did."""
    renamed = changed = made = 0
    kept: set[str] = set()
    for name, array in after.tensors.items():
        origin = after.origin.get(name, ())
        kept.update(origin)
        if len(origin) != 1 or len(array.parents) > 1:
            made += 1
            continue
        renamed += origin != (name,)
        changed += before.tensors.get(origin[0]) != array
    gone = len(before.tensors.keys() - kept)
    words = [(renamed, "renamed"), (changed, "changed"), (made, "made"), (gone, "dropped")]
    told = ", ".join(f"{count} {word}" for count, word in words if count)
    return f"{told} of {len(before)} tensors" if told else ""
