"""Jobs and reports as lines of JSON, which is what crosses to another process and back.

No pickle: what comes back from a process that has read a hostile file is data too.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from tensorkeep.facts import Finding, Limits
from tensorkeep.scanning.explaining import Explained, ExplainedLine
from tensorkeep.scanning.reports import FileReport
from tensorkeep.scanning.walking import Job


def line(value: object) -> bytes:
    """`value` as one line. ASCII only, so that a path that is no text comes through."""
    return json.dumps(value).encode("ascii") + b"\n"


def pack_job(job: Job) -> dict[str, Any]:
    """A job as JSON holds it."""
    return asdict(job)


def job_of(packed: dict[str, Any]) -> Job:
    """What `pack_job` has packed."""
    return Job(**{**packed, "limits": Limits(**packed["limits"])})


def pack_report(report: FileReport | None) -> dict[str, Any] | None:
    """A report as JSON holds it, with all its fields."""
    return None if report is None else asdict(report)


def report_of(packed: dict[str, Any] | None) -> FileReport | None:
    """What `pack_report` has packed."""
    if packed is None:
        return None
    packed["findings"] = [Finding(**found) for found in packed["findings"]]
    packed["allowed"] = {int(at): reason for at, reason in packed["allowed"].items()}
    if packed["programs"] is not None:
        packed["programs"] = [_program(program) for program in packed["programs"]]
    return FileReport(**packed)


def _program(packed: dict[str, Any]) -> Explained:
    lines = tuple(ExplainedLine(**row) for row in packed.pop("lines"))
    return Explained(**packed, lines=lines)
