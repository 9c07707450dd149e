"""`tensorkeep scan`"""

from __future__ import annotations

import click

from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import show, show_json
from tensorkeep.cli.progress import reporter
from tensorkeep.cli.verdicts import Verdicts
from tensorkeep.errors import TensorkeepError
from tensorkeep.facts import Verdict
from tensorkeep.scanning.reports import ScanReport, failure
from tensorkeep.scanning.targets import scan

_RANK: dict[Verdict, int] = {"safe": 0, "suspicious": 1, "unknown": 1, "dangerous": 2}


@click.command("scan")
@click.argument("targets", nargs=-1, required=True, type=EXISTING, metavar="TARGET...")
@FORMAT
@click.option("--deep", is_flag=True, help="Read tensor bytes too: checksums, hidden pickles.")
@click.option(
    "--fail-on",
    type=click.Choice(["suspicious", "dangerous"]),
    default="suspicious",
    show_default=True,
    help="The mildest verdict that makes the exit code 1.",
)
@click.option("--explain", is_flag=True, help="Show every pickle as a program in words.")
@click.option("--verbose", is_flag=True, help="List safe files too, and every finding in full.")
def command(
    targets: tuple[str, ...],
    form: str,
    deep: bool,
    fail_on: Verdict,
    explain: bool,
    verbose: bool,
) -> int:
    """Say what loading a file would run, and what is odd about it. Nothing is run.

    Exit code: 0 if all is safe, 1 on findings, 2 if a file could not be read to its end.

    \b
    Examples:
      tensorkeep scan model.pth
      tensorkeep scan --fail-on dangerous --format json checkpoints/
    """
    report = ScanReport(depth="deep" if deep else "default")
    for target in targets:
        try:
            part = scan(target, deep=deep, explain=explain, reporter=reporter())
        except TensorkeepError as error:
            if len(targets) == 1:
                raise
            # One target that is not there must not hide what was found in the others.
            part = ScanReport([failure(target, error)])
        report.files += part.files
        report.skipped += part.skipped
    if form == "json":
        show_json(report.to_dict())
    else:
        show(Verdicts(report, verbose).lines())
    return _exit_code(report, fail_on)


def _exit_code(report: ScanReport, fail_on: Verdict) -> int:
    verdicts = {file.verdict for file in report.files}
    if "unknown" in verdicts:
        return 2
    return int(any(_RANK[verdict] >= _RANK[fail_on] for verdict in verdicts))
