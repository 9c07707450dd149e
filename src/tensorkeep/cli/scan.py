"""`tensorkeep scan`"""

from __future__ import annotations

import click

from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import Line, many, show, show_json, size
from tensorkeep.cli.progress import reporter
from tensorkeep.errors import TensorkeepError, escape
from tensorkeep.facts import Finding, Verdict
from tensorkeep.scanning.reports import FileReport, ScanReport, failure
from tensorkeep.scanning.targets import scan

_STYLE = {
    "safe": "bold green",
    "suspicious": "bold yellow",
    "unknown": "bold yellow",
    "dangerous": "bold red",
}
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
def command(targets: tuple[str, ...], form: str, deep: bool, fail_on: Verdict) -> int:
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
            part = scan(target, deep=deep, reporter=reporter())
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
        show(_lines(report))
    return _exit_code(report, fail_on)


def _exit_code(report: ScanReport, fail_on: Verdict) -> int:
    verdicts = {file.verdict for file in report.files}
    if "unknown" in verdicts:
        return 2
    return int(any(_RANK[verdict] >= _RANK[fail_on] for verdict in verdicts))


def _lines(report: ScanReport) -> list[Line]:
    lines: list[Line] = []
    for file in report.files:
        lines += _file(file)
    if len(report.files) > 1 or report.skipped:
        lines += [_summary(report)]
    return lines


def _file(file: FileReport) -> list[Line]:
    # The verdict in front: in a list of files it is what the eye looks for.
    head: Line = [(f"{file.verdict:<11}", _STYLE[file.verdict]), (escape(file.path), "bold")]
    lines: list[Line] = [head]
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in file.findings:
        groups.setdefault((finding.rule, finding.why, finding.remedy), []).append(finding)
    for group in groups.values():
        lines += _group(group)
    return lines


def _group(group: list[Finding]) -> list[Line]:
    """What a rule found, and once why that matters and what to do."""
    lines: list[Line] = []
    for finding in group:
        lines.append(
            [(f"  {finding.severity}  ", _STYLE[finding.severity]), (escape(finding.what), "")]
        )
        lines.append([("    at      ", "dim"), (escape(finding.where), "")])
    finding = group[0]
    lines.append([("    why     ", "dim"), (escape(finding.why), "")])
    if finding.remedy:
        lines.append([("    do      ", "dim"), (escape(finding.remedy), "")])
    lines.append([("    rule    ", "dim"), (finding.rule, "dim")])
    return lines


def _summary(report: ScanReport) -> Line:
    counts: dict[str, int] = {}
    for file in report.files:
        counts[file.verdict] = counts.get(file.verdict, 0) + 1
    parts = [f"{count} {verdict}" for verdict, count in sorted(counts.items())]
    if report.skipped:
        parts.append(f"{report.skipped} skipped (no model files)")
    total = f"{many(len(report.files), 'file')}: " + ", ".join(parts)
    return [(f"{total}; {size(report.bytes_not_read)} not read", "dim")]
