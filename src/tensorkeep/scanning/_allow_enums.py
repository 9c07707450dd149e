"""Allowlisted enumerations: a member is pickled as a call of its class with the member's value.

Source: `Enum.__reduce_ex__` in CPython's `Lib/enum.py`. A call with the value of a member looks
it up and runs nothing of the class; a combination of flags within the mask is made once and kept
by the class, as every use of it would. Another value would reach `_missing_`, which is the
class's own code: it is not in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tensorkeep.scanning._allow_enum_values import ENUMS_TEXT
from tensorkeep.scanning._allow_kinds import Entry, KindOf, Rule

# The same package under another name.
_ALIASES = {"lightning.pytorch.": "pytorch_lightning.", "lightning.fabric.": "lightning_fabric."}


def _member(values: list[object]) -> Rule:
    known = {(type(value), value) for value in values}

    def rule(args: tuple[object, ...], _: KindOf) -> bool:
        if len(args) != 1 or not isinstance(args[0], int | str | None):
            return False
        return (type(args[0]), args[0]) in known

    return rule


def _flags(mask: int) -> Rule:
    def rule(args: tuple[object, ...], _: KindOf) -> bool:
        return len(args) == 1 and type(args[0]) is int and args[0] >= 0 and not args[0] & ~mask

    return rule


def _rows() -> Iterator[tuple[str, str, Rule]]:
    for row in ENUMS_TEXT.replace("\n  ", " ").split("\n"):
        if not row:
            continue
        path, _, text = row.partition(" ")
        module, _, name = path.partition(":")
        flags = text.startswith("&")
        values = json.loads(text.removeprefix("&"))
        rule = _flags(values[0]) if flags else _member(values)
        yield module, name, rule
        for prefix, other in _ALIASES.items():
            if module.startswith(prefix):
                yield other + module.removeprefix(prefix), name, rule


ENTRIES: tuple[Entry, ...] = tuple(
    Entry(
        module,
        name,
        "looks a member up by its value, which is one of those that the class has",
        call=True,
        reference="enum-class",
        rule=rule,
        makes="enum",
        fresh=False,
    )
    for module, name, rule in _rows()
)
