"""One line of Python-like text for any value of a pickle program.

The values are hostile: nested a million deep, shared so that writing them out takes exponential
room, or containing themselves. So the writer keeps its own stack, and stops when it has written
enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tensorkeep.errors import escape
from tensorkeep.pickles.values import (
    Call,
    Effect,
    Extension,
    Global,
    Import,
    Node,
    Persistent,
    write_with,
)

_MAX_BITS = 256  # longer integers are shown by their length; str() of them takes quadratic time
_MOST_SORTED = 100  # members of a set
_MOST_COMPARED = 8  # parts of a tuple in one
BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


class _Text(str):
    """Text to write as it is; any other str is a value to quote."""

    __slots__ = ()


def describe(value: object, limit: int = 200) -> str:
    """`value` as one printable line of at most `limit` characters, cut off with "...".

    Calls look like calls and attribute names are not checked: this is for people, and not to be
    evaluated. What contains itself shows as "...".
    """
    return write(value, limit)[0]


def write(
    value: object, limit: int, name_of: Callable[[object], str] = lambda _piece: ""
) -> tuple[str, bool]:
    """As `describe`, and whether the line is whole. `name_of` gives parts a name to stand for them.

    It is not asked about `value` itself, only about what lies in it.
    """
    parts: list[str] = []
    room = limit
    open_ids: set[int] = set()
    levels: list[tuple[Iterator[object], int]] = [(iter((value,)), 0)]
    whole = True
    while levels and room >= 0:
        piece = next(levels[-1][0], _END)
        if piece is _END:
            open_ids.discard(levels.pop()[1])
            continue
        text = (name_of(piece) if len(levels) > 1 else "") or _plain(piece, room)
        if text is None and (id(piece) in open_ids or len(levels) > limit):
            text, whole = "...", False
        if text is None:
            open_ids.add(id(piece))
            levels.append((_pieces(piece), id(piece)))
        else:
            parts.append(text)
            room -= len(text)
    line = "".join(parts)
    if len(line) > limit:
        return line[: max(limit - 3, 0)] + "...", False
    return line, whole and not levels


_END = object()


def _plain(piece: object, room: int) -> str | None:
    """The text of what has no parts, or None."""
    if isinstance(piece, _Text):
        return str(piece)
    if isinstance(piece, str | bytes | bytearray):
        return repr(piece[: room + 1])
    if isinstance(piece, int) and piece.bit_length() > _MAX_BITS:
        return f"<int of {piece.bit_length()} bits>"
    if isinstance(piece, Global) and piece.operands is None:
        return escape(f"{piece.module[: room + 1]}.{piece.name[: room + 1]}")
    if isinstance(piece, Extension):
        return f"extension({piece.code})"
    if isinstance(piece, Node | Effect | Import) or type(piece) in BRACKETS:
        return None
    return repr(piece) if isinstance(piece, int | float | None) else f"<{type(piece).__name__}>"


def _pieces(value: object) -> Iterator[object]:
    """The parts of `value` with the text between them."""
    if isinstance(value, Call):
        return _call(value)
    if isinstance(value, Global):
        return _computed(value)
    if isinstance(value, Persistent):
        return iter((_Text("persistent("), value.pid, _Text(")")))
    if isinstance(value, Import):
        return iter((_Text("import "), value.target))
    if isinstance(value, Effect):
        return _effect(value)
    return _container(value)


def _computed(name: Global) -> Iterator[object]:
    assert name.operands is not None
    yield _Text("<import of ")
    yield from _listed(name.operands)
    yield _Text(">")


def _call(call: Call) -> Iterator[object]:
    yield call.func
    yield _Text(".__new__(" if call.kind.startswith("NEWOBJ") else "(")
    if isinstance(call.args, tuple):
        yield from _listed(call.args)
    else:
        yield from (_Text("*"), call.args)
    if call.kwargs is not None:
        yield from (_Text(", **"), call.kwargs)
    yield _Text(")")


def _effect(effect: Effect) -> Iterator[object]:
    yield effect.target
    if effect.kind.startswith("SETITEM"):
        for at in range(0, len(effect.args), 2):
            opening = _Text("[" if at == 0 else "; [")
            yield from (opening, effect.args[at], _Text("] = "), effect.args[at + 1])
        return
    methods = {"BUILD": "__setstate__", "APPEND": "append", "APPENDS": "extend"}
    yield _Text(f".{methods.get(effect.kind, 'add')}(")
    yield from _listed(effect.args)
    yield _Text(")")


def _container(value: object) -> Iterator[object]:
    opening, closing = BRACKETS[type(value)]
    if isinstance(value, set | frozenset) and not value:
        yield _Text(f"{type(value).__name__}()")
        return
    yield _Text(opening)
    if isinstance(value, dict):
        yield from _pairs(value)
    elif isinstance(value, set | frozenset):
        yield from _members(value)
    else:
        yield from _listed(value)  # type: ignore[arg-type]
    lonely = isinstance(value, tuple) and len(value) == 1
    yield _Text("," + closing if lonely else closing)


def _members(items: set[object] | frozenset[object]) -> Iterator[object]:
    """Sorted: the order of a set is another one in every process, and a report must not be."""
    if (members := in_order(items)) is None:
        yield _Text(f"<{len(items):,} items>")
    else:
        yield from _listed(members)


def in_order(items: set[object] | frozenset[object]) -> list[object] | None:
    """The members of a set in an order of their own; None if there are too many to sort."""
    return None if len(items) > _MOST_SORTED else sorted(items, key=_order)


def _order(item: object, depth: int = 2) -> tuple[object, ...]:
    """Something to sort by that no file can make expensive."""
    kind = type(item).__name__
    if isinstance(item, int | str | bytes):
        return kind, item
    if isinstance(item, Node):
        return kind, item.offset
    if isinstance(item, tuple) and depth:
        return kind, len(item), *(_order(part, depth - 1) for part in item[:_MOST_COMPARED])
    if isinstance(item, frozenset) and depth and len(item) <= _MOST_COMPARED:
        return kind, len(item), *sorted(_order(part, depth - 1) for part in item)
    return kind, len(item) if isinstance(item, tuple | frozenset) else repr(item)


def _listed(items: tuple[object, ...] | list[object]) -> Iterator[object]:
    for number, item in enumerate(items):
        if number:
            yield _Text(", ")
        yield item


def _pairs(items: dict[object, object]) -> Iterator[object]:
    for number, (key, value) in enumerate(items.items()):
        if number:
            yield _Text(", ")
        yield from (key, _Text(": "), value)


write_with(describe)
