"""`tensorkeep quantize`"""

from __future__ import annotations

import math
from typing import Any

import click

from tensorkeep.cli.folded import folded
from tensorkeep.cli.options import REQUIRE, SECTION, SRC_AND_DST, WRITING, InGroups, option
from tensorkeep.cli.output import Line, many, note_lines, number, short, show, show_json, size, talk
from tensorkeep.cli.progress import reporter
from tensorkeep.cli.written import head, left_out
from tensorkeep.edits.quantized import LEAST
from tensorkeep.errors import escape
from tensorkeep.quantizing import Kept, QuantizeReport, Weight, quantize

_LISTED = 8
_NAMED = 2
_WHICH = "What becomes int8"


@click.command("quantize", cls=InGroups)
@SRC_AND_DST
@SECTION
@REQUIRE
@option(_WHICH, "--only", metavar="GLOB", multiple=True, help="Quantise such names, nothing else.")
@option(_WHICH, "--skip", metavar="GLOB", multiple=True, help="Keep such names as they are.")
@option(_WHICH, "--embeddings", is_flag=True, help="Quantise embeddings too.")
@option(_WHICH, "--lm-head", is_flag=True, help="Quantise the head of a language model too.")
@option(_WHICH, "--conv", is_flag=True, help="Quantise weights of more than 2 dimensions too.")
@option(
    _WHICH,
    "--min-size",
    metavar="N",
    type=click.IntRange(0),
    default=LEAST,
    help=f"Keep tensors of fewer than N elements as they are; {LEAST} by default.",
)
@WRITING
def command(src: str, dst: str, form: str, **options: Any) -> int:  # noqa: ANN401
    """Write SRC to DST with its large weights as int8, a scale for each output channel.

    From file to file, without the model's class. Nothing is run. DST ending in "/" also gets
    config.json, so that transformers loads it.

    \b
    Examples:
      tensorkeep quantize model.pth model-int8.safetensors
      tensorkeep quantize --skip '*.router.*' Llama-3-8B/ Llama-3-8B-int8/
    """
    report = quantize(src, dst, reporter=reporter(), **options)
    if form == "json":
        show_json(report.to_dict(), rows=("quantized", "kept"))
        return 0
    note_lines(report.notes)
    talk(left_out(report))
    show(_lines(report))
    return 0


def _lines(report: QuantizeReport) -> list[Line]:
    what = f"{size(report.bytes_after)}, was {size(report.bytes_before)}"
    first = head(report, what, [f"{report.ratio:.2f}x smaller"])
    return [first, *_quantized(report), *_kept(report.kept)]


def _quantized(report: QuantizeReport) -> list[Line]:
    title: list[tuple[str, str]] = [("int8", "bold")]
    title.append((f"  {many(len(report.quantized), 'tensor')}", ""))
    rows = report.quantized if report.dry_run else report.worst
    if report.sqnr_db is not None:
        worst = "; the lowest first" if len(rows) > 1 else ""
        title.append((f", SQNR {_decibels(report.sqnr_db)} over all{worst}", ""))
    columns = "    SQNR   smaller  was       tensor"
    lines: list[Line] = ["", title, [(columns, "dim")]]
    lines += [_row(weight) for weight in rows[:_LISTED]]
    return lines + _more(len(rows))


def _row(weight: Weight) -> Line:
    decibels = "" if weight.sqnr_db is None else _decibels(weight.sqnr_db)
    smaller = f"{weight.bytes_before / weight.bytes_after:.2f}x"
    tie = f"  = {short(weight.tied_to)}" if weight.tied_to else ""
    plain = f"{smaller:>8}  {weight.dtype:<8}  {short(weight.name)}{tie}"
    return [(f"{decibels:>8}", "yellow"), (f"  {plain}", "")]


def _decibels(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "exact"


def _kept(kept: list[Kept]) -> list[Line]:
    """What stays as it is, by reason, what is largest first."""
    if not kept:
        return []
    groups: dict[str, list[Kept]] = {}
    for one in kept:
        groups.setdefault(one.why, []).append(one)
    ordered = sorted(groups.items(), key=lambda group: -sum(one.nbytes for one in group[1]))
    lines: list[Line] = ["", [("kept", "bold"), (f"  {many(len(kept), 'tensor')}", "")]]
    for why, found in ordered[:_LISTED]:
        lines.append(
            f"{size(sum(one.nbytes for one in found)):>10}  {number(len(found)):>4}  {escape(why)}"
        )
        names = folded([one.name for one in found])
        more = f" and {number(len(names) - _NAMED)} more" if len(names) > _NAMED else ""
        told = ", ".join(short(name) for name in names[:_NAMED])
        lines.append([(f"{'':18}{told}{more}", "dim")])
    return lines + _more(len(ordered))


def _more(count: int) -> list[Line]:
    if count <= _LISTED:
        return []
    return [[(f"{'':10}and {number(count - _LISTED)} more (--format json lists them)", "dim")]]
