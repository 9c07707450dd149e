"""`tensorkeep.toml`: which findings do not count, and why. Pure: text in, settings out.

A finding that is allowed is still reported, with the reason; it does not change the exit code.
What could not be read always counts.

The scope of an entry follows from what it may let through. A class of one's own may be allowed by
path: files under that path come and go, and what the entry lets through is code that the user
already has. A name that does harm (`os.system`) may be allowed only for one exact file: what it
would do is in its arguments, which are in the file, and the next file has others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tensorkeep.errors import BadArgument
from tensorkeep.facts import Finding
from tensorkeep.scanning._globs import pattern
from tensorkeep.scanning.dangerous import danger
from tensorkeep.scanning.reports import FileReport, ScanReport

_T = TypeVar("_T")
NAME = "tensorkeep.toml"
# The rules that an entry without a digest can answer: they say no more than "nobody knows this
# name". Everything else is about what a file does with a name, and that is for the exact file.
BY_NAME = frozenset({"pickle/unknown-call", "pickle/unknown-class", "pickle/unknown-import"})
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_GLOBAL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@dataclass(frozen=True, slots=True)
class Allow:
    """Names that are in order, in the files that `path` matches or that have `digest`."""

    names: frozenset[str]
    reason: str
    path: re.Pattern[str] | None = None
    digest: str = ""

    def covers(self, found: Finding, path: str, digest: str) -> bool:
        """Whether this entry answers `found` in the file at `path`."""
        if found.subject not in self.names:
            return False
        if self.digest:
            return digest == self.digest
        fits = self.path is None or self.path.fullmatch(path) is not None
        return fits and found.rule in BY_NAME


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says; None and empty where it says nothing."""

    fail_on: str | None = None
    deep: bool | None = None
    jobs: int | None = None
    baseline: str | None = None
    exclude: tuple[re.Pattern[str], ...] = ()
    allow: tuple[Allow, ...] = ()
    accept: dict[str, str] = field(default_factory=dict)

    @property
    def needs_digests(self) -> bool:
        """Whether the digests of files with findings have to be known."""
        return bool(self.accept) or any(entry.digest for entry in self.allow)

    def excluded(self, path: str) -> bool:
        """Whether a walked directory's file is left out. `path` is relative, with `/`."""
        return any(glob.fullmatch(path) for glob in self.exclude)

    def reason(self, found: Finding, path: str, digest: str) -> str | None:
        """Why `found` does not count, or None: it counts."""
        if digest and digest in self.accept:
            return self.accept[digest]
        entries = (entry for entry in self.allow if entry.covers(found, path, digest))
        return next((entry.reason for entry in entries), None)


def allow(report: ScanReport, reason: Callable[[Finding, FileReport], str | None]) -> None:
    """Note for every finding of `report` why it does not count, if `reason` gives one.

    What could not be read always counts: whatever lies behind it, nobody has seen.
    """
    for file in report.files:
        for at, found in enumerate(file.findings):
            if found.severity == "unknown" or at in file.allowed:
                continue
            why = reason(found, file)
            if why is not None:
                file.allowed[at] = why


def parse(text: str, where: str) -> Settings:
    """The settings in `text`, `where` being the file's name. Raises `BadArgument`."""
    import tomllib  # most scans have no settings to read

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadArgument(where, expected="TOML", got=error, remedy="Mend that line.") from None
    _known(table, ("scan",), where)
    scan = _table(table.get("scan", {}), f"{where}: [scan]")
    keys = ("fail_on", "deep", "jobs", "baseline", "exclude", "allow", "accept")
    _known(scan, keys, f"{where}: [scan]")
    return Settings(
        _fail_on(scan.get("fail_on"), f"{where}: scan.fail_on"),
        _typed(scan.get("deep"), bool, "true or false", f"{where}: scan.deep"),
        _jobs(scan.get("jobs"), f"{where}: scan.jobs"),
        _typed(scan.get("baseline"), str, "a path", f"{where}: scan.baseline"),
        tuple(
            pattern(glob, f"{where}: scan.exclude")
            for glob in _list(scan.get("exclude", []), f"{where}: scan.exclude")
        ),
        tuple(
            _allow(_table(entry, place), place)
            for entry, place in _entries(scan.get("allow", []), f"{where}: [[scan.allow]]")
        ),
        dict(
            _accept(_table(entry, place), place)
            for entry, place in _entries(scan.get("accept", []), f"{where}: [[scan.accept]]")
        ),
    )


def _allow(entry: dict[str, Any], where: str) -> Allow:
    _known(entry, ("global", "reason", "path", "digest"), where)
    given = entry.get("global")
    names = [given] if isinstance(given, str) else _list(given or [], f"{where}: global")
    if not names:
        remedy = "Name it as the scan does, for example global = 'my_models.Config'."
        raise BadArgument(where, expected="global, an exact name or a list", remedy=remedy)
    for name in names:
        if not isinstance(name, str) or not _GLOBAL.fullmatch(name):
            remedy = "Patterns are not taken: each name is allowed for itself."
            raise BadArgument(f"{where}: global", expected="pkg.Class", got=name, remedy=remedy)
    path, digest = entry.get("path"), _digest(entry.get("digest"), f"{where}: digest")
    if path is not None and digest:
        remedy = "Leave out one of them: the digest says which file it is."
        raise BadArgument(where, expected="path or digest", got="both", remedy=remedy)
    harmful = sorted(name for name in names if does_harm(name))
    if harmful and not digest:
        remedy = "Give the digest of the one file that you have looked into, or convert that file."
        raise BadArgument(where, expected=f"a digest for {harmful[0]}", got="none", remedy=remedy)
    glob = None if path is None else pattern(path, f"{where}: path")
    return Allow(frozenset(names), _reason(entry, where), glob, digest)


def does_harm(qualified: str) -> bool:
    """Whether the table of harmful names has this one, wherever its module ends."""
    parts = qualified.split(".")
    return any(danger(".".join(parts[:at]), ".".join(parts[at:])) for at in range(1, len(parts)))


def _accept(entry: dict[str, Any], where: str) -> tuple[str, str]:
    _known(entry, ("digest", "reason"), where)
    digest = _digest(entry.get("digest"), f"{where}: digest")
    if not digest:
        remedy = "It is what sha256sum prints: digest = 'sha256:...'."
        raise BadArgument(where, expected="the digest of a file", got="none", remedy=remedy)
    return digest, _reason(entry, where)


def _reason(entry: dict[str, Any], where: str) -> str:
    reason = entry.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        remedy = "Say in a few words why it is in order: the next reader will ask."
        raise BadArgument(where, expected="a reason", got=reason or "none", remedy=remedy)
    return reason.strip()


def _digest(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        remedy = "It is what sha256sum prints, with sha256: in front."
        raise BadArgument(where, expected="sha256: and 64 hex digits", got=value, remedy=remedy)
    return value


def _fail_on(value: object, where: str) -> str | None:
    if value is None or value in ("suspicious", "dangerous"):
        return str(value) if value else None
    remedy = "Write one of these two."
    raise BadArgument(where, expected="suspicious or dangerous", got=value, remedy=remedy)


def _jobs(value: object, where: str) -> int | None:
    jobs = _typed(value, int, "a number of processes", where)
    if isinstance(value, bool) or (jobs is not None and jobs < 1):
        remedy = "Leave it out for one process for each core."
        raise BadArgument(where, expected="1 or more", got=value, remedy=remedy)
    return jobs


def _typed(value: object, kind: type[_T], expected: str, where: str) -> _T | None:
    if value is not None and not isinstance(value, kind):
        raise BadArgument(where, expected=expected, got=repr(value), remedy="Mend that line.")
    return value


def _known(table: dict[str, Any], keys: Iterable[str], where: str) -> None:
    unknown = sorted(set(table) - set(keys))
    if unknown:
        expected = ", ".join(keys)
        remedy = "Check the spelling: a setting that is not read would be no setting."
        raise BadArgument(where, expected=expected, got=unknown[0], remedy=remedy)


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadArgument(where, expected="a table", got=repr(value), remedy="Mend that line.")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadArgument(where, expected="a list", got=repr(value), remedy="Put it in brackets.")
    return value


def _entries(value: object, where: str) -> list[tuple[object, str]]:
    if not isinstance(value, list):
        remedy = "Write its heading in double brackets."
        raise BadArgument(where, expected="a list of tables", got=repr(value)[:80], remedy=remedy)
    return [(entry, f"{where} number {at}") for at, entry in enumerate(value, 1)]
