"""`tensorkeep convert`"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import Line, many, note_lines, show, show_json, size, talk
from tensorkeep.cli.progress import reporter
from tensorkeep.converting import ConvertReport, convert
from tensorkeep.edits.edit import Edit
from tensorkeep.errors import escape

_LISTED = 12
_SOURCES = 3
_ORDER = "tensorkeep.edits"
_EDITS = ("strip", "rename", "add_prefix", "drop")


class _InOrder(click.Command):
    """Keeps the order in which edits were given: they apply one after the other."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; it would give each option its values, and no order between options."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order if parameter.name in _EDITS]
        return super().parse_args(ctx, args)


@click.command("convert", cls=_InOrder)
@click.argument("src", type=EXISTING)
@click.argument("dst", type=EXISTING)
@FORMAT
@click.option("--to", metavar="FORMAT", help="safetensors or torch; by default DST's ending says.")
@click.option(
    "--section", metavar="NAME", help='A top-level part or "all"; the weights by default.'
)
@click.option("--only", metavar="GLOB", multiple=True, help="Take only tensors with such names.")
@click.option("--skip", metavar="GLOB", multiple=True, help="Leave out tensors with such names.")
@click.option("--strip", metavar="PREFIX", multiple=True, help="Take this off names: module.")
@click.option("--rename", metavar="FROM=TO", multiple=True, help="Rename parts: h.{n}=layers.{n}.")
@click.option("--add-prefix", metavar="PREFIX", multiple=True, help="Put this before all names.")
@click.option("--drop", metavar="PATTERN", multiple=True, help="Leave out what was renamed so.")
@click.option("--recipe", metavar="FILE", type=EXISTING, help="Apply the edits of a TOML file.")
@click.option("--dtype", metavar="DTYPE", help="Cast floating point tensors to this.")
@click.option(
    "--on-overflow",
    type=click.Choice(["warn", "error"]),
    default="warn",
    show_default=True,
    help="Of values that DTYPE cannot hold.",
)
@click.option("--shard-size", metavar="SIZE", help="Largest part in a directory: 5GB, 500MiB.")
@click.option("--drop-unsupported", is_flag=True, help="Leave out what DST cannot hold.")
@click.option("--require", type=click.Choice(["safe"]), help="Refuse a source that is not safe.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--verify", is_flag=True, help="Read everything back and compare before it appears.")
@click.option("--overwrite", is_flag=True, help="Replace DST if it exists.")
def command(src: str, dst: str, form: str, **options: Any) -> int:  # noqa: ANN401
    """Write the tensors of SRC to DST in the format of DST's ending. Nothing is run.

    DST ending in "/" gets numbered parts and an index. DST appears whole or not at all.
    Edits of names apply in the order given, then those of the recipe.

    \b
    Examples:
      tensorkeep convert model.pth model.safetensors
      tensorkeep convert --dtype bfloat16 --shard-size 2GB run.ckpt model/
    """
    edits = _edits({name: iter(options.pop(name)) for name in _EDITS})
    report = convert(src, dst, edits=edits, reporter=reporter(), **options)
    if form == "json":
        show_json(report.to_dict())
        return 0
    note_lines(report.notes)
    if report.effect:
        talk([[("edits: ", "cyan"), (escape(report.effect), "")]])
    talk(_left_out(report))
    show(_lines(report))
    return 0


def _edits(given: dict[str, Iterator[str]]) -> list[Edit]:
    """The edits that the flags mean, in the order in which they stand."""
    order = click.get_current_context().meta[_ORDER]
    if not order:
        return []
    from tensorkeep.edits.names import flagged

    return flagged((name, next(given[name])) for name in order)


def _lines(report: ConvertReport) -> list[Line]:
    verb = "would write " if report.dry_run else "wrote "
    where = escape(report.destination)
    what = f"  {many(report.tensors, 'tensor')}, {size(report.nbytes)}"
    extra = []
    if len(report.files) > 1:
        extra.append(f"{len(report.files)} files")
    if report.tied:
        extra.append(f"{len(report.tied)} tied")
    if report.cast:
        extra.append(f"{len(report.cast)} cast")
    if report.verified is not None:
        extra.append(f"{report.verified} compared, equal")
    more = f" ({', '.join(extra)})" if extra else ""
    lines: list[Line] = [[(verb, "bold green"), (where, "bold"), (what + more, "")]]
    if report.dry_run:
        lines += [_row(row) for row in report.outputs]
    return lines


def _row(row: dict[str, Any]) -> Line:
    sources = row.get("made_of", [row["from"]])
    more = f" and {len(sources) - _SOURCES} more" if len(sources) > _SOURCES else ""
    shown = ", ".join(map(escape, sources[:_SOURCES])) + more
    origin = f"  from {shown}" if sources and sources != [row["name"]] else ""
    tie = f"  = {escape(row['tied_to'])}" if row["tied_to"] else ""
    return f"  {escape(row['name'])}  {row['dtype']} {row['shape']}{tie}{origin}"


def _left_out(report: ConvertReport) -> list[Line]:
    lines: list[Line] = [
        [("left out: ", "yellow"), (f"{escape(name)} ({escape(why)})", "")]
        for name, why in report.left_out[:_LISTED]
    ]
    if len(report.left_out) > _LISTED:
        lines.append(f"left out: {len(report.left_out) - _LISTED} more (--format json lists them)")
    return lines
