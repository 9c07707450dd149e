"""`tensorkeep scan`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from tensorkeep.cli.options import EXISTING
from tensorkeep.cli.output import show, show_json
from tensorkeep.cli.progress import reporter
from tensorkeep.cli.settings import Rules, rules, write_baseline
from tensorkeep.cli.verdicts import Verdicts
from tensorkeep.errors import BadArgument, TensorkeepError
from tensorkeep.facts import Verdict
from tensorkeep.scanning.reports import ScanReport, failure
from tensorkeep.scanning.targets import scan

_RANK: dict[Verdict, int] = {"safe": 0, "suspicious": 1, "unknown": 1, "dangerous": 2}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line; None where the settings decide."""

    form: str
    deep: bool | None
    explain: bool
    verbose: bool
    fail_on: Verdict | None
    jobs: int | None


@click.command("scan")
@click.argument("targets", nargs=-1, required=True, type=EXISTING, metavar="TARGET...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["human", "json", "sarif"]),
    default="human",
    show_default=True,
    help="How to write the result.",
)
@click.option(
    "--deep", is_flag=True, default=None, help="Read tensor bytes too: checksums, hidden pickles."
)
@click.option("--explain", is_flag=True, help="Show every pickle as a program in words.")
@click.option("--verbose", is_flag=True, help="List safe files too, and every finding in full.")
@click.option(
    "--fail-on",
    type=click.Choice(["suspicious", "dangerous"]),
    help="The mildest verdict that makes the exit code 1.  [default: suspicious]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes for the files of a directory.  [default: one for each core]",
)
@click.option(
    "--config", type=EXISTING, help="Settings.  [default: tensorkeep.toml, if it is there]"
)
@click.option("--no-config", is_flag=True, help="Read no settings.")
@click.option("--baseline", type=EXISTING, help="Findings in this file do not count.")
@click.option("--write-baseline", type=EXISTING, help="Write what is found to this file.")
@click.option(
    "--safe-globals", is_flag=True, help="Say what torch.load(weights_only=True) would need."
)
def command(
    targets: tuple[str, ...],
    config: str | None,
    no_config: bool,
    baseline: str | None,
    write_baseline: str | None,
    safe_globals: bool,
    **given: object,
) -> int:
    """Say what loading a file would run, and what is odd about it. Nothing is run.

    Exit code: 0 if all is safe, 1 on findings, 2 if a file could not be read to its end.

    \b
    Examples:
      tensorkeep scan model.pth
      tensorkeep scan --fail-on dangerous --format sarif checkpoints/
    """
    options = Options(**given)  # type: ignore[arg-type]
    if safe_globals:
        from tensorkeep.cli.needed import show_needed  # few ask for that

        return show_needed(targets, options.form)
    if baseline and write_baseline:
        remedy = "Leave out one of them."
        raise BadArgument("--baseline", expected="no --write-baseline", got="both", remedy=remedy)
    held = rules(config, no_config, baseline)
    report = _scan(targets, options, held, digests=held.need_digests or write_baseline is not None)
    held.apply(report)
    _show(report, options)
    if write_baseline is not None:
        _write(report, write_baseline)
        return 2 if any(found.severity == "unknown" for found in report.findings) else 0
    fail_on = options.fail_on or held.settings.fail_on or "suspicious"
    return _exit_code(report, fail_on)  # type: ignore[arg-type]


_write = write_baseline


def _scan(targets: tuple[str, ...], options: Options, held: Rules, digests: bool) -> ScanReport:
    from tensorkeep.fleet.pool import processes

    deep = held.settings.deep if options.deep is None else options.deep
    report = ScanReport(depth="deep" if deep else "default")
    for target in targets:
        try:
            part = scan(
                target,
                deep=bool(deep),
                explain=options.explain,
                reporter=reporter(),
                mapper=processes(options.jobs or held.settings.jobs),
                digests=digests,
                exclude=held.excluded,
            )
        except TensorkeepError as error:
            if len(targets) == 1:
                raise
            # One target that is not there must not hide what was found in the others.
            part = ScanReport([failure(target, error)])
        report.files += part.files
        report.skipped += part.skipped
        report.excluded += part.excluded
    return report


def _show(report: ScanReport, options: Options) -> None:
    if options.form == "json":
        show_json(report.to_dict())
    elif options.form == "sarif":
        show_json(_sarif(report))
    else:
        address = _documentation() if report.findings else ""
        show(Verdicts(report, options.verbose, address).lines())


def _documentation() -> str:
    """Where the documentation is published, as the package's own metadata say; "" if nowhere."""
    from importlib.metadata import metadata

    addresses = metadata("tensorkeep").get_all("Project-URL") or []
    told = (line.partition(", ") for line in addresses)
    return next((address for label, _, address in told if label == "Documentation"), "")


def _sarif(report: ScanReport) -> dict[str, object]:
    from importlib.metadata import version

    from tensorkeep.scanning.sarif import sarif

    return sarif(
        report,
        version=version("tensorkeep"),
        folder=Path.cwd(),
        documentation=_documentation(),
    )


def _exit_code(report: ScanReport, fail_on: Verdict) -> int:
    if any(file.counted == "unknown" for file in report.files):
        return 2
    return int(any(_RANK[file.counted] >= _RANK[fail_on] for file in report.files))
