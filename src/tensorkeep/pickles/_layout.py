"""Values as indented lines: on one line what fits, below each other what does not, and what
repeats counted.

Bounded whatever the value is: a line has a longest length, a value a most number of lines and a
deepest indentation, and only the beginning of a long container is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from tensorkeep.errors import escape
from tensorkeep.pickles._uses import CONTAINERS, Uses
from tensorkeep.pickles.describe import BRACKETS, in_order, write
from tensorkeep.pickles.values import Call, Effect, Global, Node, Persistent

_WIDTH = 100
_LEAF = 400  # a text or a number that has a line to itself
_KEY = 80
_SMALL = 40  # a shared container that is no longer is written wherever it is used
_DEEPEST = 5
_ROWS = 120
_SAME = 2  # items of one shape that are written, in one container
_SAME_ATOMS = 12
_CALL = 200  # a call that is part of a value has one line, however long its arguments are
_LOOKED_AT = 5_000
_DEFINITIONS = 100  # shared containers that get a variable

_ATOMS = frozenset({"str", "int", "float", "bool", "NoneType", "bytes"})

Item = tuple[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a statement. `part`: "head" its first line, "more" the others, "shared" a value
    that is used more than once and is written before the statement that uses it first. `more`
    counts the values that the line stands for."""

    text: str
    part: str
    offset: int | None = None
    more: int = 0


class Drawer:
    """Writes values, and knows the variables that stand for some of them."""

    def __init__(self, uses: Uses) -> None:
        self._uses = uses
        self._names: dict[int, str] = {}
        self._small: dict[int, bool] = {}
        self._pending: list[object] = []
        self._left = 0
        self._defined = 0

    def name(self, value: object) -> str:
        """The variable of `value`, a new one if it has none."""
        return self._names.setdefault(id(value), f"v{len(self._names) + 1}")

    def draw(self, value: object, before: str, note: str = "") -> list[Row]:
        """The lines of `value` behind `before`, and before them what they use and nobody has
        written yet."""
        self._left = _ROWS
        name = self._name_of(value) if before == "return " else ""
        own = [Row(f"return {name}", "head")] if name else list(self._rows(value, before, "", 0))
        own[0] = replace(own[0], part="head")
        own[-1] = replace(own[-1], text=own[-1].text + note)
        return [*self._shared(), *own]

    def _shared(self) -> list[Row]:
        """Definitions that the lines so far have asked for, those first that others ask for."""
        found: list[list[Row]] = []
        while self._pending:
            value = self._pending.pop()
            self._left = _ROWS
            rows = self._rows(value, f"{self._names[id(value)]} = ", "", 0)
            found.append([replace(row, part="shared") for row in rows])
        return [row for rows in reversed(found) for row in rows]

    def _name_of(self, piece: object) -> str:
        known = self._names.get(id(piece), "")
        if known or type(piece) not in CONTAINERS or self._uses.count(piece) < 2:
            return known
        if self._is_small(piece) or self._defined >= _DEFINITIONS:
            return ""
        self._defined += 1
        self._pending.append(piece)
        return self.name(piece)

    def _is_small(self, piece: object) -> bool:
        small = self._small.get(id(piece))
        if small is None:
            _, small = write(piece, _SMALL, lambda inner: self._names.get(id(inner), ""))
            self._small[id(piece)] = small
        return small

    def _rows(
        self,
        value: object,
        before: str,
        after: str,
        depth: int,
        part: bool = False,
        brief: bool = False,
    ) -> Iterator[Row]:
        """`before`, the value, `after`; on as many lines as it takes, on one if `brief`."""
        self._left -= 1
        if isinstance(value, Effect) and value.kind.startswith("SETITEM"):
            yield from self._assignments(value)
            return
        name = self._name_of(value) if part else ""
        if name:
            yield Row(f"{before}{name}{after}", "more", _offset(value))
            return
        if isinstance(value, Effect) and value.kind == "BUILD":
            opening = f"{before}{self._text(value.target)}.__setstate__("
            state = value.args[0]
            if named := self._name_of(state):
                yield Row(f"{opening}{named}){after}", "more")
            else:
                yield from self._rows(state, opening, f"){after}", depth)
            return
        inline = part and isinstance(value, Call | Persistent)
        room = _CALL if inline else _WIDTH - len(before)
        text, whole = write(value, max(room, _SMALL), self._name_of)
        deep = inline or brief or depth >= _DEEPEST or self._left <= 0
        block = None if whole or deep else self._block(value)
        if block is None:
            if not whole and isinstance(value, str | bytes | bytearray):
                text = self._leaf(value)
            yield Row(before + text + after, "more", _offset(value))
            return
        opening, items, closing = block
        yield Row(before + opening, "more", _offset(value))
        yield from self._items(items, len(closing) > 0, depth)
        yield Row("    " * depth + closing + after, "more")

    def _leaf(self, value: str | bytes | bytearray) -> str:
        text, whole = write(value, _LEAF)
        return text if whole else f"{text} ({len(value):,} long)"

    def _block(self, value: object) -> tuple[str, Iterator[Item], str] | None:
        """The text before the parts of `value`, the parts, and the text behind them."""
        if isinstance(value, Call) and isinstance(value.args, tuple) and value.args:
            made = ".__new__(" if value.kind.startswith("NEWOBJ") else "("
            return self._text(value.func) + made, self._arguments(value), ")"
        if isinstance(value, Effect):
            return self._change(value)
        if isinstance(value, Persistent):
            return "persistent(", iter((("", value.pid),)), ")"
        if type(value) is dict and value:
            return "{", ((f"{self._key(k)}: ", v) for k, v in value.items()), "}"
        if type(value) not in BRACKETS or not value:
            return None
        items = in_order(value) if isinstance(value, set | frozenset) else value
        if items is None:
            return None
        opening, closing = BRACKETS[type(value)]
        return opening, (("", item) for item in items), closing  # type: ignore[attr-defined]

    def _text(self, value: object) -> str:
        return self._names.get(id(value)) or write(value, _KEY, self._name_of)[0]

    def _key(self, value: object) -> str:
        return self._name_of(value) or write(value, _KEY, self._name_of)[0]

    def _arguments(self, call: Call) -> Iterator[Item]:
        assert isinstance(call.args, tuple)
        yield from (("", arg) for arg in call.args)
        if call.kwargs is not None:
            yield "**", call.kwargs

    def _change(self, effect: Effect) -> tuple[str, Iterator[Item], str]:
        target = self._text(effect.target)
        verb = {"APPEND": "append", "APPENDS": "extend"}.get(effect.kind, "add")
        return f"{target}.{verb}(", (("", item) for item in effect.args), ")"

    def _assignments(self, effect: Effect) -> Iterator[Row]:
        target = self._text(effect.target)
        pairs = zip(effect.args[::2], effect.args[1::2], strict=True)
        items = ((f"{target}[{self._key(key)}] = ", value) for key, value in pairs)
        yield from self._items(items, False, -1)

    def _items(self, items: Iterator[Item], commas: bool, depth: int) -> Iterator[Row]:
        """The parts of a block, alike ones counted after the first few."""
        near = list(islice(items, _LOOKED_AT))
        alike = Counter(_shape(item) for _, item in near)
        seen: Counter[str] = Counter()
        hidden = 0
        indent = "    " * (depth + 1)
        for label, item in near:
            shape = _shape(item)
            seen[shape] += 1
            most = _SAME_ATOMS if shape in _ATOMS else _SAME
            # Three lines are no longer than two and one that says "1 more".
            if (seen[shape] > most and alike[shape] > most + 1) or self._left <= 0:
                hidden += 1
                continue
            if hidden:
                yield _more(hidden, indent)
                hidden = 0
            brief = seen[shape] > 1
            yield from self._rows(item, indent + label, "," * commas, depth + 1, True, brief)
        hidden += sum(1 for _ in items)
        if hidden:
            yield _more(hidden, indent)


def _more(count: int, indent: str) -> Row:
    return Row(f"{indent}... {count:,} more like these", "more", None, count)


def _offset(value: object) -> int | None:
    return value.offset if isinstance(value, Node) and not isinstance(value, Global) else None


def _shape(value: object) -> str:
    """What makes two items alike enough to show only a few of them."""
    if isinstance(value, Call) and isinstance(value.func, Global):
        return escape(value.func.qualified[:200])
    return type(value).__name__
