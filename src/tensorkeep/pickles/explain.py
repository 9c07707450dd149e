"""A pickle as a program in words: Python-like lines, each with the byte that it comes from.

    2  from os import system
   31  os.system('echo hello')
   40  return {'epoch': 3}

The stack, the marks and the memo do not show. A result gets a variable only if it is used twice
or changed later; a call whose result nobody uses still shows, because it still runs. What repeats
is counted instead of written, so that 20,000 tensors are a few lines. Nothing is judged here: the
caller's `weigh` says which steps must have a line of their own, and are counted last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tensorkeep.errors import escape
from tensorkeep.pickles._layout import Drawer, Row
from tensorkeep.pickles._uses import Event, Uses, events
from tensorkeep.pickles.values import Call, Effect, Extension, Global, Import, Persistent, Program

_ALIKE = 6  # steps that do the same with other values, before they are counted only
_NAMES = 60  # imports of weight 0
_ALIKE_HEAVY = 40  # the same, of those that weigh
_MOST = 400  # statements of each weight


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `text` is printable, `offset` the byte of the opcode behind it.

    `offset` is None where a line goes on or stands for what is not written; `module` and `name`
    say what the line imports, calls, or changes an object of. `kind`: "import",
    "call", "change", "persistent", "data", "return", "more" (it stands for `more`
    steps or values) or "broken".
    """

    offset: int | None
    text: str
    kind: str
    module: str = ""
    name: str = ""
    more: int = 0

    @property
    def qualified(self) -> str:
        """The name with its module in front."""
        return f"{self.module}.{self.name}" if self.name else ""


Weigh = Callable[[Event], int]


def explain(program: Program, weigh: Weigh = lambda _event: 0) -> list[Line]:
    """The lines of `program`, a few hundred at most.

    `weigh` gives a step 0 (it may be written into the line that uses it), 1 (it has its own line)
    or 2 (so too, and no number of lighter lines may push it out).
    """
    lines: list[Line] = []
    for line in _Explanation(program, weigh).lines():
        if line.more and lines and lines[-1].more and _indent(lines[-1]) == _indent(line):
            lines[-1] = _more(lines[-1].more + line.more, _indent(line))
        else:
            lines.append(line)
    return lines


def _indent(line: Line) -> int:
    return len(line.text) - len(line.text.lstrip())


def _more(count: int, indent: int = 0) -> Line:
    return Line(None, f"{' ' * indent}... {count:,} more like these", "more", more=count)


class _Explanation:
    """The state of one writing: which variables there are, and what has been shown how often."""

    def __init__(self, program: Program, weigh: Weigh) -> None:
        self._program = program
        self._weigh = weigh
        self._events = events(program)
        self._uses = Uses(self._events, program.value)
        self._drawer = Drawer(self._uses)
        self._alike: dict[tuple[object, ...], int] = {}
        self._written = [0, 0, 0]
        self._hidden = 0
        self._imported: set[int] = set()

    def lines(self) -> Iterator[Line]:
        for event in self._events:
            weight = self._weigh(event)
            if self._in_place(event, weight) or self._known(event):
                continue
            variable = self._variable(event)
            if not self._room(event, weight):
                self._hidden += _items(event)
                continue
            yield from self._counted()
            yield from self._statement(event, variable)
        yield from self._counted()
        yield from self._ending()

    def _in_place(self, event: Event, weight: int) -> bool:
        """Whether the line that uses this result shows it."""
        if weight or not isinstance(event, Call | Persistent):
            return False
        used = self._uses.count(event)
        return used == 1 and not event.effects and id(event) not in self._uses.early

    def _known(self, event: Event) -> bool:
        """Whether this name has been imported before: nothing happens again."""
        if not isinstance(event, Import):
            return False
        known = id(event.target) in self._imported
        self._imported.add(id(event.target))
        return known

    def _variable(self, event: Event) -> str:
        if isinstance(event, Call | Persistent) and self._uses.count(event):
            return self._drawer.name(event)
        return ""

    def _room(self, event: Event, weight: int) -> bool:
        """Whether this step is shown: the first few that are alike, and a bounded number in all."""
        key, most = _likeness(event)
        seen = self._alike[key] = self._alike.get(key, 0) + 1
        if seen > (_ALIKE_HEAVY if weight else most) or self._written[weight] >= _MOST:
            return False
        self._written[weight] += 1
        return True

    def _counted(self) -> Iterator[Line]:
        if self._hidden:
            yield _more(self._hidden)
            self._hidden = 0

    def _statement(self, event: Event, variable: str) -> Iterator[Line]:
        if isinstance(event, Import):
            yield Line(event.offset, _import(event), "import", *_about(event))
            return
        kind = "call" if isinstance(event, Call) else "change"
        kind = "persistent" if isinstance(event, Persistent) else kind
        before = f"{variable} = " if variable else ""
        for row in self._drawer.draw(event, before, self._note(event)):
            if row.part == "head":
                yield Line(event.offset, row.text, kind, *_about(event))
            else:
                yield _further(row)

    def _note(self, event: Event) -> str:
        """What the line alone would not tell."""
        if isinstance(event, Effect) and event.kind == "BUILD":
            state = event.args[0]
            slots = isinstance(state, tuple) and len(state) == 2
            return "  # the second part by setattr, one by one" if slots else ""
        # A call got what its arguments were then; what is shown is what they became.
        if not isinstance(event, Call) or not isinstance(event.args, tuple):
            return ""
        changed = [self._program.changed.get(id(arg), -1) for arg in event.args]
        last = max(changed, default=-1)
        return f"  # an argument is changed later, at {last}" if last > event.offset else ""

    def _ending(self) -> Iterator[Line]:
        program = self._program
        if program.error is None:
            for row in self._drawer.draw(program.value, "return "):
                if row.part == "head":
                    yield Line(program.end - 1, row.text, "return")
                else:
                    yield _further(row)
        else:
            error = program.error
            expected = f"expected {error.expected}, got " if error.expected else ""
            yield Line(program.end, f"breaks off here: {expected}{error.got}", "broken")


def _further(row: Row) -> Line:
    return Line(row.offset, row.text, "more" if row.more else "data", more=row.more)


def _import(event: Import) -> str:
    target = event.target
    if isinstance(target, Extension):
        return f"import whatever copyreg has registered as extension {target.code}"
    text = f"from {_short(target.module)} import {_short(target.name)}"
    if target.written != (target.module, target.name):
        text += f"  # written {_short('.'.join(target.written))}"
    return f"{text}  # a name that is computed" if target.computed else text


def _short(name: str) -> str:
    # A name that is no name could be made to read like the rest of a line.
    plain = all(part.isidentifier() for part in name[:160].split("."))
    text = escape(name[:160]) if plain else repr(name[:160])
    return text if len(name) <= 160 else text + "..."


def _about(event: Event) -> tuple[str, str]:
    """Module and name of what a step imports, calls or changes an object of, or two ""."""
    if isinstance(event, Import):
        target: object = event.target
    elif isinstance(event, Call):
        target = event.func
    elif isinstance(event, Effect):
        target = event.target.func if isinstance(event.target, Call) else event.target
    else:
        return "", ""
    return (target.module, target.name) if isinstance(target, Global) else ("", "")


def _likeness(event: Event) -> tuple[tuple[object, ...], int]:
    """What makes steps alike, and how many of those are shown."""
    if isinstance(event, Import):
        return ("import",), _NAMES
    if isinstance(event, Effect) and event.kind == "BUILD":
        return ("BUILD", *_about(event)), _ALIKE // 2
    if isinstance(event, Effect):
        # Picklers fill a long list or dict in batches: the first one shows what it is filled with.
        return (event.kind, id(event.target)), 1 if _items(event) > 1 else _ALIKE
    return (event.kind if isinstance(event, Call) else "", *_about(event)), _ALIKE


def _items(event: Event) -> int:
    if isinstance(event, Effect):
        return len(event.args) // 2 if event.kind.startswith("SETITEM") else len(event.args)
    return 1
