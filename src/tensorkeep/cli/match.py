"""`tensorkeep match`"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import Any

import click

from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import Line, note_lines, show, show_json
from tensorkeep.edits.recipe import write_recipe
from tensorkeep.errors import BadArgument, escape
from tensorkeep.live.fitting import match
from tensorkeep.matching.report import MatchReport


@click.command("match")
@click.argument("ckpt", type=EXISTING)
@click.argument("against", metavar="AGAINST")
@FORMAT
@click.option(
    "--section", metavar="NAME", help='A top-level part or "all"; the weights by default.'
)
@click.option("--model-args", metavar="JSON", help="Arguments of the factory: an object or a list.")
@click.option("--write-recipe", "recipe", metavar="FILE", help="Write the rules as a recipe.")
@click.option("--mend", is_flag=True, help="Write the edits that are hinted at into FILE, too.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
def command(
    ckpt: str,
    against: str,
    form: str,
    section: str | None,
    model_args: str | None,
    recipe: str | None,
    mend: bool,
    overwrite: bool,
) -> int:
    """Find the smallest list of renames after which CKPT fits AGAINST. No tensor is read.

    AGAINST: another checkpoint, what `inspect --format json` wrote, or a model's factory,
    package.module:factory, importable from the current folder; it is run, on the meta device.
    Exit code: 0 if everything fits, 1 if not, 2 if it could not be found out.

    \b
    Examples:
      tensorkeep match model.pth mypackage.models:build
      tensorkeep match --write-recipe rules.toml run.ckpt base.safetensors
    """
    # What a factory prints must not come between the lines that another program reads.
    with redirect_stdout(sys.stderr):
        report = match(ckpt, against, section=section, model_args=_arguments(model_args))
    if mend and recipe is None:
        raise BadArgument("--mend", expected="--write-recipe FILE with it", got="none")
    if recipe is not None:
        _write(recipe, report, mend, overwrite)
    if form == "json":
        show_json(report.to_dict())
    else:
        show(_lines(report))
        note_lines([*report.notes, *report.match.notes])
    return 0 if report.fits else 1


def _arguments(text: str | None) -> Any:  # noqa: ANN401
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArgument("--model-args", expected="JSON", got=error) from None


def _write(path: str, report: MatchReport, mend: bool, overwrite: bool) -> None:
    write_recipe(path, report.mended if mend else report.recipe, overwrite=overwrite)
    report.notes.append(f"rules written to {path}")
    asked = [name for hint in report.hints for name in hint.asks]
    if mend and asked:
        report.notes.append(f"edits that need {', '.join(asked)} from you are not in {path}")


def _lines(report: MatchReport) -> list[Line]:
    label, style = ("fits       ", "bold green") if report.fits else ("differs    ", "bold red")
    lines: list[Line] = [[(label, style), (escape(report.path), "bold")]]
    return lines + [[("  ", ""), (escape(line), "")] for line in report.sentences()]
