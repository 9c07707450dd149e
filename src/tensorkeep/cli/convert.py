"""`tensorkeep convert`"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

import click

from tensorkeep.cli.options import (
    EXISTING,
    REQUIRE,
    SECTION,
    SRC_AND_DST,
    WRITING,
    InGroups,
    option,
    together,
)
from tensorkeep.cli.output import Line, many, note_lines, show, show_json, size, talk
from tensorkeep.cli.progress import reporter
from tensorkeep.cli.written import head, left_out
from tensorkeep.converting import ConvertReport, convert
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.flags import OPTIONS, flagged
from tensorkeep.errors import escape

_SOURCES = 3
_ORDER = "tensorkeep.edits"
_TAKEN, _NAMES, _VALUES = "What is taken", "Edits of names", "Edits of values"
_ANY = "Edits of any kind"


class _InOrder(InGroups):
    """Keeps the order in which edits were given: they apply one after the other."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; it would give each option its values, and no order between options."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order if parameter.name in OPTIONS]
        return super().parse_args(ctx, args)


def _several(group: str, name: str, metavar: str, text: str) -> Callable[[Any], Any]:
    return option(group, name, metavar=metavar, multiple=True, help=text)


_EDITS = together(
    _several(_NAMES, "--strip", "PREFIX", "Take this off names: module."),
    _several(_NAMES, "--rename", "FROM=TO", "Rename parts: h.{n}=layers.{n}."),
    _several(_NAMES, "--add-prefix", "PREFIX", "Put this before all names."),
    _several(_NAMES, "--drop", "PATTERN", "Leave out what was renamed so."),
    _several(_VALUES, "--merge-lora", "ADAPTER", "Add a PEFT adapter to its weights."),
    _several(_VALUES, "--average", "OTHER", "The mean with this checkpoint; of all, if several."),
    option(
        _VALUES, "--fold-weight-norm", is_flag=True, help="One weight of each norm and direction."
    ),
    option(_VALUES, "--dequantize", is_flag=True, help="Floats of int8 weights and their scales."),
    _several(_ANY, "--edit", "EDIT", "An op and its fields: 'resize pattern=wte size=50304'."),
    option(_ANY, "--recipe", metavar="FILE", type=EXISTING, help="The edits of a TOML file."),
    option(_VALUES, "--dtype", metavar="DTYPE", help="Cast floating point tensors to this, last."),
    option(
        _VALUES,
        "--on-overflow",
        type=click.Choice(["warn", "error"]),
        default="warn",
        show_default=True,
        help="Of values that a dtype cannot hold.",
    ),
)


@click.command("convert", cls=_InOrder)
@SRC_AND_DST
@SECTION
@_several(_TAKEN, "--only", "GLOB", "Take only tensors with such names.")
@_several(_TAKEN, "--skip", "GLOB", "Leave out tensors with such names.")
@REQUIRE
@_EDITS
@WRITING
def command(src: str, dst: str, form: str, **options: Any) -> int:  # noqa: ANN401
    """Write the tensors of SRC to DST in the format of DST's ending. Nothing is run.

    DST ending in "/" gets numbered parts and an index. DST appears whole or not at all.
    Edits apply in the order given, then those of the recipe. An EDIT is an op and its fields,
    as a recipe has them: docs/edits.md lists all.

    \b
    Examples:
      tensorkeep convert model.pth model.safetensors
      tensorkeep convert --merge-lora adapter/ --dtype bfloat16 --shard-size 2GB base/ merged/
    """
    edits = _edits({name: options.pop(name) for name in OPTIONS})
    report = convert(src, dst, edits=edits, reporter=reporter(), **options)
    if form == "json":
        show_json(report.to_dict())
        return 0
    note_lines(report.notes)
    if report.effect:
        talk([[("edits: ", "cyan"), (escape(report.effect), "")]])
    talk(left_out(report))
    show(_lines(report))
    return 0


def _edits(given: dict[str, Any]) -> list[Edit]:
    """The edits that the options mean, in the order in which they stand."""
    order = click.get_current_context().meta[_ORDER]
    values = {
        name: iter(value) if isinstance(value, tuple) else repeat(value)
        for name, value in given.items()
    }
    return flagged((name, next(values[name])) for name in order)


def _lines(report: ConvertReport) -> list[Line]:
    extra = [f"{len(report.tied)} tied"] if report.tied else []
    if report.cast:
        extra.append(f"{len(report.cast)} cast")
    first = head(report, f"{many(report.tensors, 'tensor')}, {size(report.nbytes)}", extra)
    return [first, *(_row(row) for row in report.outputs if report.dry_run)]


def _row(row: dict[str, Any]) -> Line:
    sources = row.get("made_of", [row["from"]])
    more = f" and {len(sources) - _SOURCES} more" if len(sources) > _SOURCES else ""
    shown = ", ".join(map(escape, sources[:_SOURCES])) + more
    origin = f"  from {shown}" if sources and sources != [row["name"]] else ""
    tie = f"  = {escape(row['tied_to'])}" if row["tied_to"] else ""
    return f"  {escape(row['name'])}  {row['dtype']} {row['shape']}{tie}{origin}"
