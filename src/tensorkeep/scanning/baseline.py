"""Findings that were there before: a file of them, and which of today's are in it.

A finding is known if the very same file (by its digest) had it when the baseline was written. A
file that has changed by one byte is not covered: whoever can add a class to a checkpoint can add
anything. What could not be read is never in a baseline.
"""

from __future__ import annotations

import json
from collections import Counter

from tensorkeep.errors import BadArgument
from tensorkeep.facts import Finding
from tensorkeep.scanning.reports import FileReport, ScanReport

_SCHEMA = 1
_KEYS = ("path", "digest", "rule", "member", "subject")
KNOWN = "It was there when the baseline was written, in the same file"

Key = tuple[str, str, str, str]


def write(report: ScanReport) -> str:
    """The baseline of `report`, as text. Files without a digest cannot be in it."""
    found = [
        dict(zip(_KEYS, (file.path, *_key(finding, file)), strict=True))
        for file in report.files
        for finding in file.findings
        if file.digest and finding.severity != "unknown"
    ]
    rows = [dict(pairs) for pairs in dict.fromkeys(tuple(row.items()) for row in found)]
    return json.dumps({"schema": _SCHEMA, "tool": "tensorkeep", "findings": rows}, indent=1) + "\n"


def uncovered(report: ScanReport) -> int:
    """How many findings of `report` a baseline cannot hold."""
    counts = Counter(
        file.digest == "" or finding.severity == "unknown"
        for file in report.files
        for finding in file.findings
    )
    return counts[True]


def read(text: str, where: str) -> frozenset[Key]:
    """What `write` has written. Raises `BadArgument` for anything else."""
    try:
        table = json.loads(text)
        if table["schema"] != _SCHEMA or table["tool"] != "tensorkeep":
            raise ValueError
        rows = [_row(row) for row in table["findings"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadArgument(
            where,
            expected=f"a baseline of schema {_SCHEMA}",
            got="something else",
            remedy="Write it anew with tensorkeep scan --write-baseline.",
        ) from None
    return frozenset(rows)


def _row(row: dict[str, object]) -> Key:
    digest, rule, member, about = (row[key] for key in _KEYS[1:])
    if not isinstance(digest, str) or not isinstance(rule, str):
        raise TypeError
    if not isinstance(member, str) or not isinstance(about, str):
        raise TypeError
    return digest, rule, member, about


def _key(found: Finding, file: FileReport) -> Key:
    # What a rule says about no name is told apart by its text, positions included: the file is
    # the same to the byte.
    about = found.subject or found.what
    return file.digest, found.rule, found.member, about.encode("utf-8", "replace").decode()


def reason(known: frozenset[Key], found: Finding, file: FileReport) -> str | None:
    """Why `found` does not count, or None: it is not in the baseline."""
    return KNOWN if file.digest and _key(found, file) in known else None
