"""The programs of a file in words, with what the rules say about each line beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tensorkeep.facts import Finding, Verdict
from tensorkeep.formats.contents import Contents
from tensorkeep.pickles import Call, Effect, Global, Import, Persistent, Program
from tensorkeep.scanning.dangerous import danger, gain
from tensorkeep.scanning.dialects import Dialect
from tensorkeep.scanning.rules import judge_persistent
from tensorkeep.scanning.verdicts import ORDER

if TYPE_CHECKING:
    from tensorkeep.pickles.explain import Line

_Key = TypeVar("_Key", tuple[str, int], tuple[str, str])
_PROGRAMS = 200  # of one file


@dataclass(frozen=True, slots=True)
class ExplainedLine:
    """A line of a program. `severity`: what the rules say about it, "safe" for most lines.

    `gain` says what whoever made the file gains from a dangerous line; for other lines with a
    finding, why they matter.
    """

    offset: int | None
    text: str
    severity: Verdict = "safe"
    gain: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "offset": self.offset,
            "text": self.text,
            "severity": self.severity,
            "gain": self.gain,
        }


@dataclass(frozen=True, slots=True)
class Explained:
    """One pickle of a file. `where`: the member it lies in, "" for the file itself."""

    where: str
    start: int
    end: int
    protocol: int
    lines: tuple[ExplainedLine, ...]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "where": self.where,
            "start": self.start,
            "end": self.end,
            "protocol": self.protocol,
            "lines": [line.to_dict() for line in self.lines],
        }


def programs_of(contents: Contents, findings: Iterable[Finding]) -> list[Explained]:
    """Every pickle of `contents` in words, nested files too, in the order in which they run."""
    marks = _Marks(findings)
    found: list[Explained] = []
    for where, program, dialect in _programs(contents, ""):
        if len(found) == _PROGRAMS:
            break
        found.append(_explained(where, program, marks, dialect))
    return found


def _explained(where: str, program: Program, marks: _Marks, dialect: Dialect) -> Explained:
    from tensorkeep.pickles.explain import explain  # few scans ask for words

    lines = explain(
        program, lambda event: max(_weight(event, dialect), marks.weight(where, event.offset))
    )
    called = {line.qualified for line in lines if line.kind == "call"}
    judged = []
    for line in lines:
        told = _judged(where, line, marks)
        if line.kind == "import" and line.qualified in called:
            told = replace(told, gain="")  # the line that calls it says so
        judged.append(told)
    return Explained(where, program.start, program.end, program.protocol, tuple(judged))


def _programs(contents: Contents, outer: str) -> Iterator[tuple[str, Program, Dialect]]:
    dialect = Dialect(contents.dialect, contents.own)
    for where, program in contents.programs:
        yield ": ".join(part for part in (outer, where) if part), program, dialect
    for where, inside in contents.nested:
        yield from _programs(inside, ": ".join(part for part in (outer, where) if part))


def _weight(event: Import | Call | Effect | Persistent, dialect: Dialect) -> int:
    """2 for what does harm, 1 for what no list knows, 0 for what honest files are made of.

    The lists are those of who runs the program, as for the verdict.
    """
    if isinstance(event, Call):
        if dialect.entry_for(event) is not None:
            return 0
        target: object = event.func
    elif isinstance(event, Import):
        if isinstance(event.target, Global) and dialect.entry(event.target) is not None:
            return 0
        target = event.target
    elif isinstance(event, Persistent):
        called = dialect.reduction(event.pid)
        if called is not None:
            return 2 if called[0] else 0
        return 0 if judge_persistent(dialect.numbered(event.pid)) else 1
    else:
        # A change to what this file did not make itself is what an attack looks like.
        return 0 if isinstance(event.target, Call) else 2
    module, name = getattr(target, "module", None), getattr(target, "name", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return 2
    return 2 if danger(module, name) else 1


class _Marks:
    """Findings by the byte they are about, and by the name: the rules count what repeats."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self._at: dict[tuple[str, int], Finding] = {}
        self._about: dict[tuple[str, str], Finding] = {}
        for found in findings:
            if found.offset is not None:
                self._keep(self._at, (found.member, found.offset), found)
            if found.subject:
                self._keep(self._about, (found.member, found.subject), found)

    @staticmethod
    def _keep(table: dict[_Key, Finding], key: _Key, found: Finding) -> None:
        known = table.get(key)
        if known is None or ORDER.index(found.severity) > ORDER.index(known.severity):
            table[key] = found

    def weight(self, where: str, offset: int) -> int:
        """How much a step weighs by what was found at its byte."""
        found = self._at.get((where, offset))
        return 0 if found is None else 1 + (found.severity == "dangerous")

    def of(self, where: str, line: Line) -> Finding | None:
        """The worst finding about this line."""
        if line.offset is None or line.kind in ("data", "more"):
            return None
        found = self._at.get((where, line.offset))
        if found is None and line.kind in ("import", "call") and line.name:
            found = self._about.get((where, line.qualified))
        return found


def _judged(where: str, line: Line, marks: _Marks) -> ExplainedLine:
    found = marks.of(where, line)
    if found is None:
        return ExplainedLine(line.offset, line.text)
    gained = gain(line.module, line.name) if line.name else ""
    return ExplainedLine(line.offset, line.text, found.severity, gained or found.why)
