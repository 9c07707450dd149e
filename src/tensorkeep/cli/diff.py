"""`tensorkeep diff`"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tensorkeep.checkpoints.folding import labels_of
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
_WIDTH = 80


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
    both = "{} and {}".format(*_titles(report))
    count = many(report.tensors[0], "tensor")
    if report.differs:
        return [(f"{both} differ: ", "bold yellow"), (_counts(report), "")]
    if report.not_compared:
        found = f"no difference found, {many(len(report.not_compared), 'value')} not compared"
        return [(f"{both}: ", "bold yellow"), (found, "")]
    if not report.values_read:
        what = f"the same names, shapes and dtypes of {count}; values were not compared"
        return [(f"{both} have ", "bold green"), (what, "")]
    within = f", {number(report.close)} of them within the tolerance" if report.close else ""
    return [(f"{both} are the same: ", "bold green"), (f"{count}{within}", "")]


def _titles(report: DiffReport) -> tuple[str, str]:
    """The last parts of the paths, or as much more as tells them apart."""
    a, b = (path.rstrip("/") or path for path in (report.a, report.b))
    short_a, short_b = a.rpartition("/")[2], b.rpartition("/")[2]
    return (escape(a), escape(b)) if short_a == short_b else (escape(short_a), escape(short_b))


def _counts(report: DiffReport) -> str:
    changed, shared = len(report.changed), _shared(report)
    parts = [f"{number(changed)} of {many(shared, 'tensor')} changed{_where(report.changed)}"]
    if not shared:
        parts = ["no name is in both"]
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
        differ = "differs" if len(report.values) == 1 else "differ"
        parts.append(f"{many(len(report.values), 'other value')} {differ}")
    return ", ".join(parts)


def _shared(report: DiffReport) -> int:
    return report.tensors[0] - len(report.removed) - len(report.renamed)


def _where(changed: Sequence[Change]) -> str:
    """The module that all changes lie in, if there is one."""
    if len(changed) < 2:
        return ""
    first, *others = [labels_of(change.name)[:-1] for change in changed]
    common = len(first)
    for other in others:
        while first[:common] != other[:common]:
            common -= 1
    return f" (all in {short('.'.join(first[:common]))}.*)" if common else ""


def _modules(report: DiffReport) -> list[Line]:
    if not report.changed or len(report.modules) < 2:
        return []
    changed, frozen = rows_of(report)
    lines: list[Line] = ["", [("relative L2        changed  module", "dim")]]
    lines += [_row(row) for row in changed[:_LISTED]]
    if len(changed) > _LISTED:
        lines.append([(f"{'':28}and {number(len(changed) - _LISTED)} more", "dim")])
    if frozen:
        names = folded(frozen)
        shown_ = [f"{'':28}{short(name)}" for name in names[:_LISTED]]
        lines.append([(f"{'frozen':>11}{'':17}{short(names[0])}", "dim")])
        lines += [[(line, "dim")] for line in shown_[1:]]
        if len(names) > _LISTED:
            lines.append([(f"{'':28}and {number(len(names) - _LISTED)} more", "dim")])
    return lines


def _row(row: Row) -> Line:
    share = f"{number(row.changed)}/{number(row.tensors)}"
    return [(f"{_float(row.rel_l2):>11}", "yellow"), (f"{share:>15}  {short(row.name)}", "")]


def _tensors(report: DiffReport) -> list[Line]:
    plain = [change for change in report.changed if change.distance is None]
    measured = [change for change in report.changed if change.distance is not None]
    lines = _unmeasured(plain)
    if not measured:
        return lines
    # What an optimizer keeps moves by orders of magnitude in each step and would fill the list.
    inner = tuple(f"{name}." for name in report.optimizers)
    told = [change for change in measured if not change.name.startswith(inner)] or measured
    told.sort(key=_order)
    lines += ["", [("relative L2   max |a-b|    cosine  tensor", "dim")]]
    lines += [_tensor(change) for change in told[:_LISTED]]
    if len(measured) > _LISTED or len(told) < len(measured):
        left = len(measured) - min(len(told), _LISTED)
        lines.append([(f"{'':35}and {number(left)} more (--format json)", "dim")])
    return lines


def _unmeasured(changes: list[Change]) -> list[Line]:
    if not changes:
        return []
    resized = all(change.what == "shape" for change in changes)
    title = "changed shape" if resized else "changed, values not compared"
    lines: list[Line] = ["", [(title, "bold")]]
    for change in changes[:_LISTED]:
        lines.append([(f"  {short(change.name)}", ""), (f"  {_forms(change)}", "cyan")])
    return lines + _more(len(changes))


def _forms(change: Change) -> str:
    (dtype, shape), (other, other_shape) = change.before, change.after
    if change.what == VALUE:
        return f"bytes differ ({dtype})"
    dtypes = dtype if dtype == other else f"{dtype} -> {other}"
    shapes = f"  {list(shape)} -> {list(other_shape)}" if shape != other_shape else ""
    return f"{dtypes}{shapes}"


def _order(change: Change) -> float:
    """The largest changes first, before them what has no finite size."""
    d = change.distance
    return -(float("inf") if d is None or d.rel_l2 is None or d.odd else d.rel_l2)


def _tensor(change: Change) -> Line:
    d = change.distance
    assert d is not None
    numbers = f"{_float(d.max_abs):>12}{_cosine(d.cosine):>10}  {short(change.name)}"
    line = [(f"{_float(d.rel_l2):>11}", "yellow"), (numbers, "")]
    if change.what != VALUE:
        line.append((f"  {_forms(change)}", "cyan"))
    if d.odd:
        line.append((f"  {many(d.odd, 'NaN or infinity')} on one side", "bold red"))
    return line


def _float(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".replace("-0.000000", "0.000000")


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
    for old, new in rows[:_LISTED]:
        line = f"  {short(old)} -> {short(new)}"
        lines += [line] if len(line) <= _WIDTH else [f"  {short(old)}", f"    -> {short(new)}"]
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
    # What stands at the top of a file (the epoch) before the depths of param_groups.
    rows.sort(key=lambda row: row.split("  ")[1].count("."))
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
