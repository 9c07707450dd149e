"""`tensorkeep diff`"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tensorkeep.cli.folded import folded, folded_pairs
from tensorkeep.cli.modules import Row, rows_of
from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import Line, many, note_lines, number, short, show, show_json
from tensorkeep.cli.progress import reporter
from tensorkeep.diffing import DiffReport, diff
from tensorkeep.errors import escape
from tensorkeep.matching.changes import VALUE, Change
from tensorkeep.matching.values import shown

_LISTED = 12
_LONGEST_VALUE = 48


@click.command("diff")
@click.argument("a", type=EXISTING)
@click.argument("b", type=EXISTING)
@FORMAT
@click.option("--metadata-only", is_flag=True, help="Compare names, shapes and dtypes alone.")
@click.option("--section", metavar="NAME", help='A top-level part of both, or "all".')
@click.option("--only", metavar="GLOB", multiple=True, help="Compare only such names.")
@click.option("--skip", metavar="GLOB", multiple=True, help="Leave such names out.")
@click.option("--atol", type=float, default=0.0, help="Absolute tolerance; 0 by default.")
@click.option("--rtol", type=float, default=0.0, help="Tolerance relative to B; 0 by default.")
def command(a: str, b: str, form: str, **options: Any) -> int:  # noqa: ANN401
    """Show what changed from checkpoint A to checkpoint B. Nothing is run.

    Exit code: 0 if they are the same, 1 if they differ, 2 if that could not be found out.

    \b
    Examples:
      tensorkeep diff step-1000.ckpt step-2000.ckpt
      tensorkeep diff --atol 1e-3 model.pth model.safetensors
    """
    report = diff(a, b, reporter=reporter(), **options)
    if form == "json":
        show_json(report.to_dict())
    else:
        show(_lines(report))
        note_lines([*_aligned(report), *report.notes])
    if report.differs:
        return 1
    return 0 if report.same else 2


def _lines(report: DiffReport) -> list[Line]:
    lines: list[Line] = [_summary(report)]
    lines += _modules(report)
    lines += _tensors(report)
    lines += _names("added", "green", report.added)
    lines += _names("removed", "red", report.removed)
    lines += _renamed(report)
    lines += _values(report)
    lines += _not_compared(report)
    return lines


def _summary(report: DiffReport) -> Line:
    a, b = _titles(report)
    both: list[tuple[str, str]] = [(a, "bold"), (" and ", ""), (b, "bold")]
    if report.differs:
        return [*both, (" differ", "bold yellow"), (f": {_counts(report)}", "")]
    if report.not_compared:
        found = f": no difference found, but {many(len(report.not_compared), 'value')} not compared"
        return [*both, (found, "bold yellow")]
    within = f", {number(report.close)} of them within the tolerance" if report.close else ""
    what = f": {many(report.tensors[0], 'tensor')}{within}"
    if not report.values_read:
        return [*both, (" have the same names, shapes and dtypes", "bold green"), (what, "")]
    return [*both, (" are the same", "bold green"), (what, "")]


def _titles(report: DiffReport) -> tuple[str, str]:
    """The last parts of the paths, or as much more as tells them apart."""
    a, b = (path.rstrip("/") or path for path in (report.a, report.b))
    short_a, short_b = a.rpartition("/")[2], b.rpartition("/")[2]
    return (escape(a), escape(b)) if short_a == short_b else (escape(short_a), escape(short_b))


def _counts(report: DiffReport) -> str:
    changed, shared = len(report.changed), _shared(report)
    parts = [f"{number(changed)} of {many(shared, 'tensor')} changed{_where(report.changed)}"]
    untouched = "identical" if report.values_read else "of the same shape and dtype"
    for count, what in (
        (report.identical, untouched),
        (report.close, "within the tolerance"),
        (len(report.renamed), "renamed"),
        (len(report.added), "added"),
        (len(report.removed), "removed"),
    ):
        if count:
            parts.append(f"{number(count)} {what}")
    if report.values:
        parts.append(f"{many(len(report.values), 'other value')} changed")
    return ", ".join(parts)


def _shared(report: DiffReport) -> int:
    return report.tensors[0] - len(report.removed) - len(report.renamed)


def _where(changed: Sequence[Change]) -> str:
    """The module that all changes lie in, if there is one."""
    if len(changed) < 2:
        return ""
    first, *others = [change.name.split(".")[:-1] for change in changed]
    common = len(first)
    for other in others:
        while first[:common] != other[:common]:
            common -= 1
    return f" (all in {short('.'.join(first[:common]))}.*)" if common else ""


def _modules(report: DiffReport) -> list[Line]:
    if not report.changed or len(report.modules) < 2:
        return []
    changed, frozen = rows_of(report)
    lines: list[Line] = ["", [("relative L2   changed  module", "dim")]]
    lines += [_row(row) for row in changed[:_LISTED]]
    if len(changed) > _LISTED:
        lines.append([(f"{'':23}and {number(len(changed) - _LISTED)} more", "dim")])
    if frozen:
        names = folded(frozen)
        shown_ = [f"{'':23}{short(name)}" for name in names[:_LISTED]]
        lines.append([(f"{'frozen':>11}{'':12}{short(names[0])}", "dim")])
        lines += [[(line, "dim")] for line in shown_[1:]]
        if len(names) > _LISTED:
            lines.append([(f"{'':23}and {number(len(names) - _LISTED)} more", "dim")])
    return lines


def _row(row: Row) -> Line:
    share = f"{number(row.changed)}/{number(row.tensors)}"
    return [(f"{_float(row.rel_l2):>11}", "yellow"), (f"{share:>10}  {short(row.name)}", "")]


def _tensors(report: DiffReport) -> list[Line]:
    if not report.changed:
        return []
    by_size = sorted(report.changed, key=_order)
    lines: list[Line] = ["", [("relative L2   max |a-b|    cosine  tensor", "dim")]]
    lines += [_tensor(change) for change in by_size[:_LISTED]]
    if len(by_size) > _LISTED:
        more = f"and {number(len(by_size) - _LISTED)} more (--format json lists them)"
        lines.append([(f"{'':35}{more}", "dim")])
    return lines


def _order(change: Change) -> tuple[int, float]:
    """Shapes first, then dtypes, then the largest changes of values."""
    rank = {"shape": 0, "dtype": 1}.get(change.what, 2)
    size = change.distance.rel_l2 if change.distance else None
    return rank, -(float("inf") if size is None else size)


def _tensor(change: Change) -> Line:
    d = change.distance
    numbers = ("", "", "")
    if d is not None:
        numbers = (_float(d.rel_l2), _float(d.max_abs), _cosine(d.cosine))
    line = [
        (f"{numbers[0]:>11}", "yellow"),
        (f"{numbers[1]:>12}{numbers[2]:>10}  {short(change.name)}", ""),
    ]
    if change.what != VALUE:
        before, after = (
            f"{dtype} {list(shape)}" if change.what == "shape" else dtype
            for dtype, shape in (change.before, change.after)
        )
        line.append((f"  {before} -> {after}", "cyan"))
    elif d is None:
        line.append((f"  bytes differ ({change.before[0]})", "cyan"))
    elif d.odd:
        line.append((f"  {many(d.odd, 'NaN or infinity')} on one side", "bold red"))
    return line


def _float(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _names(title: str, style: str, names: list[str]) -> list[Line]:
    if not names:
        return []
    rows = folded(names)
    lines: list[Line] = ["", [(title, f"bold {style}"), (f"  {many(len(names), 'tensor')}", "dim")]]
    lines += [f"  {short(name)}" for name in rows[:_LISTED]]
    return lines + _more(len(rows))


def _renamed(report: DiffReport) -> list[Line]:
    if not report.renamed:
        return []
    rows = folded_pairs(report.renamed)
    head: Line = [("renamed", "bold cyan"), (f"  {many(len(report.renamed), 'tensor')}", "dim")]
    lines: list[Line] = ["", head]
    lines += [f"  {short(old)} -> {short(new)}" for old, new in rows[:_LISTED]]
    return lines + _more(len(rows))


def _more(count: int) -> list[Line]:
    if count <= _LISTED:
        return []
    return [[(f"  and {number(count - _LISTED)} more (--format json lists them)", "dim")]]


def _values(report: DiffReport) -> list[Line]:
    found = report.values
    rows = [f"  {short(name)}  {_value(a)} -> {_value(b)}" for name, a, b in found.changed]
    rows += [f"  {short(name)}  added" for name in found.added]
    rows += [f"  {short(name)}  removed" for name in found.removed]
    if not rows:
        return []
    return ["", [("other values", "bold")], *rows[:_LISTED], *_more(len(rows))]


def _value(value: object) -> str:
    plain = shown(value)
    text = escape(plain if isinstance(plain, str) else repr(plain))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _not_compared(report: DiffReport) -> list[Line]:
    if not report.not_compared:
        return []
    lines: list[Line] = ["", [("not compared", "bold yellow")]]
    lines += [f"  {short(name)}: {escape(why)}" for name, why in report.not_compared[:_LISTED]]
    return lines + _more(len(report.not_compared))


def _aligned(report: DiffReport) -> list[str]:
    return [
        f"{what!r} taken off the names of {report.a if side == 'a' else report.b}"
        for side, what in report.aligned
    ]
