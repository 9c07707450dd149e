"""What a guard has met: a record of each load, in memory and as JSON lines in a file."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorkeep.errors import escape

_KEPT = 10_000  # a program may load items one by one for days
_NAMED, _LONGEST_NAME = 5, 200
_OUTCOMES = ("loaded", "refused", "failed")
TRUSTED_ONLY = "nothing was run but code of classes that are known or trusted"
STARTED = "started"  # of a process that came under the guard


@dataclass(frozen=True, slots=True)
class GuardEvent:
    """One load. `call` is what the program called, `outcome` "loaded", "refused" or "failed".

    `verdict` is that of a scan where the trusted names are nothing unknown, "" if it could not be
    read; `findings` are its reasons, the worst first; `inert`: names of what was not made; `made`:
    how many objects of each class were; `error`: the sentence that was raised, or "".
    """

    call: str
    path: str
    outcome: str
    verdict: str = ""
    findings: Sequence[str] = ()
    inert: Sequence[str] = ()
    made: dict[str, int] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    process: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "schema": 1,
            "call": self.call,
            "path": self.path,
            "outcome": self.outcome,
            "verdict": self.verdict,
            "findings": list(self.findings),
            "inert": list(self.inert),
            "made": self.made,
            "error": self.error,
            "seconds": round(self.seconds, 6),
            "process": self.process,
        }


_KEYS = frozenset(GuardEvent("", "", "").to_dict())


class GuardLog:
    """The loads of a guard in this process, the newest 10,000 of them.

    `path`: a file that gets a line of JSON for each; processes may share it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else str(Path(path).absolute())
        self._events: deque[GuardEvent] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    @property
    def events(self) -> list[GuardEvent]:
        """All of them, in order."""
        with self._lock:
            return list(self._events)

    @property
    def refused(self) -> list[GuardEvent]:
        """Those that were refused."""
        return [event for event in self.events if event.outcome == "refused"]

    def add(self, event: GuardEvent) -> None:
        """Keep `event`, and write it. Raises `OSError` if the file cannot be written."""
        with self._lock:
            self._events.append(event)
        self.write(event.to_dict())

    def write(self, record: dict[str, Any]) -> None:
        """A line of the file, in one piece, whoever else writes to it."""
        if self.path is None:
            return
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def summary(self) -> list[str]:
        """A few sentences for people."""
        return summarise(event.to_dict() for event in self.events)


def as_record(line: bytes) -> dict[str, Any] | None:
    """What a line of the log says; None where it is no whole line of a `GuardLog`."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if found.get("outcome") == STARTED:
        return found
    return found if found.keys() >= _KEYS and found["outcome"] in _OUTCOMES else None


def shown(names: Sequence[str]) -> str:
    """The first few of many names, each cut: a file can hold millions, and long ones."""
    few = ", ".join(
        name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "..."
        for name in names[:_NAMED]
    )
    return few + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def was_run(made: Collection[str]) -> str:
    """How the sentence on a file that is not safe ends."""
    return TRUSTED_ONLY if made else "nothing of it was run"


def summarise(events: Iterable[dict[str, Any]]) -> list[str]:
    """The same of events as JSON has them: how many, then what was refused or left inert."""
    counts = dict.fromkeys(_OUTCOMES, 0)
    lines: dict[str, None] = {}
    for event in events:
        counts[event["outcome"]] += 1
        if event["outcome"] != "loaded":
            lines[f"{event['outcome']}: {event['error']}"] = None
        elif event["inert"]:
            lines[f"{event['path']}: not made, left inert: {shown(event['inert'])}"] = None
        elif event["verdict"] != "safe":
            why = "; ".join(event["findings"][:1])
            lines[f"{event['path']}: {event['verdict']}: {why}; {was_run(event['made'])}"] = None
    told = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    total = sum(counts.values())
    first = f"{total:,} load{'s' if total > 1 else ''}: {told}" if told else "no loads"
    return [first, *map(escape, lines)]
