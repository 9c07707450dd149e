"""Which checkpoints of a run stay: policies, and what `|` makes of several.

    KeepLast(3) | KeepBest("val_loss", "min") | KeepEvery(10_000) | KeepWithin(hours=24)

A policy looks at the checkpoints that are whole, and names those that it keeps; a union keeps what
any of its parts keeps. Nothing here deletes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from tensorkeep.errors import BadArgument

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A checkpoint, as policies see it; `created` with its time zone."""

    step: int
    created: datetime
    metrics: Mapping[str, float] = field(default_factory=dict)


class Policy(ABC):
    """What stays of a run."""

    __slots__ = ()

    @abstractmethod
    def keeps(self, entries: Sequence[Entry]) -> set[int]:
        """Steps that stay, out of `entries` (whole ones, oldest first)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """As `run.json` holds it."""

    def __or__(self, other: Policy) -> Union:
        return Union((*_parts(self), *_parts(other)))


def _parts(policy: Policy) -> tuple[Policy, ...]:
    return policy.parts if isinstance(policy, Union) else (policy,)


@dataclass(frozen=True, slots=True)
class Union(Policy):
    """Keeps what any of `parts` keeps."""

    parts: tuple[Policy, ...]

    def keeps(self, entries: Sequence[Entry]) -> set[int]:
        """See `Policy`."""
        return set().union(*(part.keeps(entries) for part in self.parts))

    def to_dict(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"any": [part.to_dict() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class KeepAll(Policy):
    """Keeps everything."""

    def keeps(self, entries: Sequence[Entry]) -> set[int]:
        """See `Policy`."""
        return {entry.step for entry in entries}

    def to_dict(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"all": True}


@dataclass(frozen=True, slots=True)
class KeepLast(Policy):
    """Keeps the `count` newest steps."""

    count: int = 1

    def __post_init__(self) -> None:
        _positive("KeepLast", self.count)

    def keeps(self, entries: Sequence[Entry]) -> set[int]:
        """See `Policy`."""
        return {entry.step for entry in entries[-self.count :]}

    def to_dict(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"last": self.count}


@dataclass(frozen=True, slots=True)
class KeepBest(Policy):
    """Keeps the `count` steps whose `metric` is best; of equals the newer. NaN is never best."""

    metric: str
    mode: Mode = "min"
    count: int = 1

    def __post_init__(self) -> None:
        _positive("KeepBest", self.count)
        if self.mode not in ("min", "max"):
            raise BadArgument("KeepBest", expected="mode min or max", got=repr(self.mode))

    def ranked(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that have the metric, the best first."""
        sign = 1 if self.mode == "min" else -1
        have = [e for e in entries if self.metric in e.metrics]
        valid = [e for e in have if e.metrics[self.metric] == e.metrics[self.metric]]
        return sorted(valid, key=lambda e: (sign * e.metrics[self.metric], -e.step))

    def keeps(self, entries: Sequence[Entry]) -> set[int]:
        """See `Policy`."""
        return {entry.step for entry in self.ranked(entries)[: self.count]}

    def to_dict(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"best": self.metric, "mode": self.mode, "count": self.count}


@dataclass(frozen=True, slots=True)
class KeepEvery(Policy):
    """Keeps steps that `steps` divides."""

    steps: int

    def __post_init__(self) -> None:
        _positive("KeepEvery", self.steps)

    def keeps(self, entries: Sequence[Entry]) -> set[int]:
        """See `Policy`."""
        return {entry.step for entry in entries if entry.step % self.steps == 0}

    def to_dict(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"every": self.steps}


class KeepWithin(Policy):
    """Keeps what is younger than a time, counted back from the newest checkpoint.

    Not from now: a run that was paused for a week, or a clock that jumped, loses nothing.
    """

    __slots__ = ("seconds",)

    def __init__(self, *, days: float = 0, hours: float = 0, minutes: float = 0) -> None:
        self.seconds = timedelta(days=days, hours=hours, minutes=minutes).total_seconds()
        _positive("KeepWithin", self.seconds)

    def keeps(self, entries: Sequence[Entry]) -> set[int]:
        """See `Policy`."""
        if not entries:
            return set()
        newest = entries[-1].created
        return {
            entry.step
            for entry in entries
            if abs((newest - entry.created).total_seconds()) <= self.seconds
        }

    def to_dict(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"within_seconds": self.seconds}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeepWithin) and other.seconds == self.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)

    def __repr__(self) -> str:
        return f"KeepWithin(minutes={self.seconds / 60:g})"

    @classmethod
    def of(cls, seconds: float) -> Self:
        """The policy of so many seconds."""
        return cls(minutes=seconds / 60)


def _positive(subject: str, value: object) -> None:
    if type(value) not in (int, float) or not value > 0:  # type: ignore[operator]
        raise BadArgument(subject, expected="a number above 0", got=repr(value))


def policy_from(content: Mapping[str, Any], subject: str) -> Policy:
    """The policy of `Policy.to_dict`. Raises `BadArgument` for what none is."""
    try:
        if "any" in content:
            return Union(tuple(policy_from(each, subject) for each in content["any"]))
        if "all" in content:
            return KeepAll()
        if "last" in content:
            return KeepLast(content["last"])
        if "best" in content:
            return KeepBest(content["best"], content["mode"], content["count"])
        if "every" in content:
            return KeepEvery(content["every"])
        return KeepWithin.of(content["within_seconds"])
    except (KeyError, TypeError) as error:
        raise BadArgument(subject, expected="a policy of keeping", got=repr(content)) from error


def best_of(policy: Policy) -> KeepBest | None:
    """The first part that says which checkpoint is best."""
    return next((part for part in _parts(policy) if isinstance(part, KeepBest)), None)


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str) -> datetime:
    """When a manifest says that it was made; 1970 if that cannot be read."""
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        return _LONG_AGO
    return made if made.tzinfo else made.replace(tzinfo=UTC)
