"""What the scanner says about a pickle program, about anomalies and about what stopped the reader.

Everything here judges records that `pickles`, `archives` and `formats` made; nothing is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from tensorkeep.errors import (
    Amplified,
    LimitExceeded,
    NotACheckpoint,
    ReadError,
    TensorkeepError,
    Unsupported,
)
from tensorkeep.facts import Anomaly, Finding
from tensorkeep.pickles import Call, Effect, Global, Persistent, Program, describe
from tensorkeep.scanning._anomalies import rule_for
from tensorkeep.scanning._nesting import too_deep
from tensorkeep.scanning._trace import Trace
from tensorkeep.scanning.allowlist import entry_for_call, entry_of, kind_of
from tensorkeep.scanning.dialects import Dialect
from tensorkeep.scanning.words import RULES, Collector, Place, finding

__all__ = ["RULES", "judge_anomalies", "judge_error", "judge_persistent", "judge_program"]

# Protocol 0 has no opcode for a tuple as an id: torch writes its text, and cannot load it again.
_TEXT_ID = re.compile(
    r"\('storage', <class 'torch\.[A-Za-z0-9.]{1,40}'>, "
    r"'[0-9]{1,20}', '[a-z0-9:]{1,20}', [0-9]{1,20}\)"
)
_VIEW_PARTS = 3
# As deep as a class that is allowed reads what it is given: the fields of a numpy dtype stand in
# a dict in a tuple in its state.
_READ_DEPTH = 3
_CHANGING: frozenset[type[object]] = frozenset({tuple, list, dict, set, bytearray})


def judge_program(
    program: Program,
    where: str,
    *,
    persistent: Callable[[object], bool] | None = None,
    dialect: Dialect | None = None,
) -> list[Finding]:
    """Everything to be said about one pickle: trace, persistent ids, anomalies and error.

    `where` names the member ("archive/data.pkl"); the byte is added. `persistent` says which
    persistent ids are in order (torch's storages unless given), `dialect` who runs the program
    (Python unless given).
    """
    collector = Collector()
    dialect = dialect or Dialect()
    trace = Trace(collector, where, program.end - program.start, dialect)
    trace.judge(program.trace)
    trace.mentions(_roots(program))
    _changed_later(collector, program, where)
    deep = too_deep(program.trace)
    if deep is not None:
        what = "would make objects that lie in each other thousands deep"
        collector.add("pickle/amplification", "deep", Place(where, deep.offset), lambda: what)
    plain = [node for node in program.persistents if not _reduced(collector, trace, node, dialect)]
    in_order = persistent or (lambda pid: judge_persistent(dialect.numbered(pid)))
    _persistents(collector, trace, plain, in_order)
    found = collector.result()
    found += judge_anomalies(program.anomalies, where, default="pickle/odd-structure")
    if program.error is not None:
        found.append(judge_error(program.error, where))
    return found


def _changed_later(collector: Collector, program: Program, where: str) -> None:
    """Calls whose arguments the file changes afterwards: judged as they ended, run as they were."""
    changed = program.changed
    if not changed:
        return
    seen: dict[tuple[int, int], int] = {}
    for event in program.trace:
        if isinstance(event, Call | Effect) and _altered(event, changed, seen):
            place = Place(where, event.offset)
            what = partial(_said, event)
            collector.add("pickle/odd-structure", "changed later", place, what)


def _said(event: Call | Effect) -> str:
    return f"changes afterwards what it gives to {describe(event)}"


def _altered(
    event: Call | Effect, changed: dict[int, int], seen: dict[tuple[int, int], int]
) -> bool:
    """Whether the file changes later what `event` gives away; `seen` is kept between events."""
    parts = event.args if isinstance(event.args, tuple) else ()
    if isinstance(event, Call) and isinstance(event.kwargs, dict):
        parts = (*parts, event.kwargs)
    for part in parts:
        if part.__class__ in _CHANGING and _newest(part, _READ_DEPTH, changed, seen) > event.offset:
            return True
    return False


def _newest(
    value: object, depth: int, changed: dict[int, int], seen: dict[tuple[int, int], int]
) -> int:
    """Where `value`, or what it holds to this depth, is changed last; -1 for never.

    `value` is one of the containers that can change, or a tuple. Each is walked once for each
    depth, however often the memo names it.
    """
    key = (id(value), depth)
    newest = seen.get(key)
    if newest is None:
        newest = changed.get(id(value), -1)
        seen[key] = newest  # a container may hold itself
        kind = value.__class__
        inside: Iterable[object] = ()
        if depth > 1 and kind is not bytearray:
            inside = value.values() if kind is dict else value  # type: ignore[attr-defined,assignment]
        for part in inside:
            if part.__class__ in _CHANGING:
                newest = max(newest, _newest(part, depth - 1, changed, seen))
        seen[key] = newest
    return newest


def _roots(program: Program) -> Iterator[object]:
    yield program.value
    for event in program.trace:
        if isinstance(event, Call | Effect):
            yield _without_kept(event) if type(event) is Effect else event.args


def _without_kept(effect: Effect) -> object:
    """What an effect gives, without the functions that its target's own rule judges."""
    target, state = effect.target, effect.args[0] if effect.args else None
    if effect.kind != "BUILD" or type(state) is not dict or type(target) is not Call:
        return effect.args
    entry = entry_for_call(target)
    if entry is None or entry.blame is None:
        return effect.args
    return [value for value in state.values() if not _kept(value)]


def _kept(value: object) -> bool:
    entry = entry_of(value) if isinstance(value, Global) else None
    return entry is not None and entry.kept


def _persistents(
    collector: Collector,
    trace: Trace,
    persistents: Iterable[Persistent],
    in_order: Callable[[object], bool],
) -> None:
    for node in persistents:
        if not in_order(node.pid):
            pid = node.pid
            collector.add(
                "pickle/persistent-id",
                "",
                trace.place(node.offset),
                lambda pid=pid: f"would ask the loader for {describe(pid, 200)}",  # type: ignore[misc]
            )


def _reduced(collector: Collector, trace: Trace, node: Persistent, dialect: Dialect) -> bool:
    """Whether the id makes torch.package call a function; if so, it is judged."""
    found = dialect.reduction(node.pid)
    if found is not None and found[0]:
        rule, name, why = found
        what = partial(_called, node.pid)
        collector.add(rule, name, trace.place(node.offset), what, why)
    return found is not None


def _called(pid: object) -> str:
    return f"would make torch.package's importer call {describe(pid, 200)}"


def judge_persistent(pid: object) -> bool:
    """Whether `pid` is what torch writes for a storage: ('storage', type, key, location, numel).

    The legacy format has a sixth part: None, or (key, offset, length) of a view.
    Source: `persistent_id` in `torch/serialization.py` (2.13).
    """
    if type(pid) is str:
        return len(pid) < 200 and _TEXT_ID.fullmatch(pid) is not None
    if type(pid) is not tuple or len(pid) not in (5, 6):
        return False
    if pid[0] not in ("storage", b"storage") or kind_of(pid[1]) != "storage-class":
        return False
    _, _, key, location, numel = pid[:5]
    plain = type(key) is str and type(location) in (str, bytes) and type(numel) is int
    return plain and numel >= 0 and (len(pid) == 5 or _view(pid[5]))


def _view(view: object) -> bool:
    if view is None:
        return True
    if type(view) is not tuple or len(view) != _VIEW_PARTS:
        return False
    key, offset, length = view
    if type(key) is not str or type(offset) is not int or type(length) is not int:
        return False
    return offset >= 0 and length >= 0


def judge_anomalies(
    anomalies: Iterable[Anomaly], where: str, *, default: str = "container/odd"
) -> list[Finding]:
    """One finding for each anomaly, repeats counted; every kind is at least suspicious.

    `where` names the file or member that the anomalies were met in, `default` is the rule for a
    kind that the table does not know.
    """
    collector = Collector()
    for anomaly in anomalies:
        collector.add(
            rule_for(anomaly.kind, default),
            anomaly.kind,
            _place(where, anomaly),
            lambda anomaly=anomaly: f"{anomaly.kind}: {anomaly.what}",  # type: ignore[misc]
        )
    return collector.result()


def _place(where: str, anomaly: Anomaly) -> Place:
    inner = "" if anomaly.where == where else anomaly.where
    return Place(", ".join(part for part in (where, inner) if part), anomaly.offset)


def judge_error(error: TensorkeepError, where: str) -> Finding:
    """What stopped the reader: the file's verdict is unknown, unless something worse was found."""
    rule = "read/failed"
    if isinstance(error, Amplified):
        rule = "container/amplification"
    elif isinstance(error, LimitExceeded):
        rule = "read/limit"
    elif isinstance(error, Unsupported):
        rule = "read/unsupported"
    elif isinstance(error, NotACheckpoint):
        rule = "read/not-a-checkpoint"
    elif isinstance(error, ReadError):
        rule = "read/damaged"
    place = ", ".join(part for part in (where, "" if error.where == where else error.where) if part)
    return finding(rule, place, error.sentence())
