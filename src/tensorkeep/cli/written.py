"""What verbs that write a file say about it: what was left out, and the line at the head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tensorkeep.cli.output import Line
from tensorkeep.errors import escape

_LISTED = 12


class Written(Protocol):
    """What the reports of such verbs share."""

    destination: str
    dry_run: bool
    files: list[str]
    left_out: list[tuple[str, str]]
    verified: int | None


def head(report: Written, what: str, extra: Iterable[str]) -> Line:
    """ "wrote model/  12 tensors, 3 MB (2 files, 1 tied, 12 compared, equal)"."""
    told = [f"{len(report.files)} files"] if len(report.files) > 1 else []
    told += extra
    if report.verified is not None:
        told.append(f"{report.verified} compared, equal")
    more = f" ({', '.join(told)})" if told else ""
    return [
        ("would write " if report.dry_run else "wrote ", "bold green"),
        (escape(report.destination), "bold"),
        (f"  {what}{more}", ""),
    ]


def left_out(report: Written) -> list[Line]:
    """A line each, up to a dozen."""
    lines: list[Line] = [
        [("left out: ", "yellow"), (f"{escape(name)} ({escape(why)})", "")]
        for name, why in report.left_out[:_LISTED]
    ]
    if len(report.left_out) > _LISTED:
        lines.append(f"left out: {len(report.left_out) - _LISTED} more (--format json lists them)")
    return lines
