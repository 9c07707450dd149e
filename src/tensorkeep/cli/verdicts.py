"""A scan's report as lines for people: what matters of each file, and what was counted."""

from __future__ import annotations

from collections.abc import Iterator

from tensorkeep.cli.output import Line, many, number, size
from tensorkeep.errors import escape
from tensorkeep.facts import Finding
from tensorkeep.scanning.explaining import Explained, ExplainedLine
from tensorkeep.scanning.reports import FileReport, ScanReport
from tensorkeep.scanning.words import page

STYLE = {
    "safe": "bold green",
    "suspicious": "bold yellow",
    "unknown": "bold yellow",
    "dangerous": "bold red",
}
_LISTED = 10  # files, up to which those that are safe have a line of their own
_EXAMPLES = 5  # findings of one rule in one file
_LEADS = {
    "dangerous": "what an attacker gains",
    "unknown": "unknown",
    "suspicious": "suspicious",
    "safe": "",
}
_MARKS = {"dangerous": "!!", "unknown": " ?", "suspicious": " ?"}


class Verdicts:
    """Writes a report. `verbose`: every file and every finding, and each in full.

    `documentation` is the address that the pages of the rules lie under, "" if there is none.
    """

    def __init__(self, report: ScanReport, verbose: bool = False, documentation: str = "") -> None:
        self._report = report
        self._verbose = verbose
        self._documentation = documentation.rstrip("/")
        self._said: set[tuple[str, str, str]] = set()

    def lines(self) -> Iterator[Line]:
        """All lines; the summary is left out where there is one file only."""
        files = self._report.files
        brief = len(files) > _LISTED and not self._verbose
        for file in files:
            if not (brief and file.verdict == "safe" and file.programs is None):
                yield from self._file(file, brief)
        if len(files) > 1 or self._report.skipped or self._report.excluded:
            yield self._summary()

    def _file(self, file: FileReport, brief: bool) -> Iterator[Line]:
        # The verdict in front: in a list of files it is what the eye looks for.
        yield [(f"{file.verdict:<11}", STYLE[file.verdict]), (escape(file.path), "bold")]
        groups: dict[tuple[str, str, str], list[Finding]] = {}
        allowed: dict[tuple[str, str], list[Finding]] = {}
        for at, finding in enumerate(file.findings):
            if at in file.allowed:
                allowed.setdefault((finding.rule, file.allowed[at]), []).append(finding)
            else:
                groups.setdefault((finding.rule, finding.why, finding.remedy), []).append(finding)
        for key, group in groups.items():
            yield from self._group(group, brief and key in self._said)
            self._said.add(key)
        for (_, reason), group in allowed.items():
            yield from self._allowed(group, reason)
        for program in file.programs or ():
            yield from _program(program)

    def _allowed(self, group: list[Finding], reason: str) -> Iterator[Line]:
        """What does not count, and why."""
        shown = group if self._verbose else group[:1]
        for finding in shown:
            yield [("  allowed     ", "dim"), (escape(finding.what), "dim")]
        if len(shown) < len(group):
            yield [
                ("    and     ", "dim"),
                (f"{number(len(group) - len(shown))} more like it", "dim"),
            ]
        yield [("    because ", "dim"), (escape(reason), "dim")]
        yield [("    rule    ", "dim"), (self._named(group[0].rule), "dim")]

    def _named(self, rule: str) -> str:
        return f"{rule}  {self._documentation}/{page(rule)}" if self._documentation else rule

    def _group(self, group: list[Finding], said: bool) -> Iterator[Line]:
        """What a rule found; why that matters and what to do once, unless it was said before."""
        shown = group if self._verbose else group[:_EXAMPLES]
        for finding in shown:
            label = f"  {finding.severity}  "
            yield [(label, STYLE[finding.severity]), (escape(finding.what), "")]
            yield [("    at      ", "dim"), (escape(finding.where), "")]
        if len(shown) < len(group):
            yield [("    and     ", "dim"), (f"{number(len(group) - len(shown))} more like it", "")]
        finding = group[0]
        if not said:
            yield [("    why     ", "dim"), (escape(finding.why), "")]
            if finding.remedy:
                yield [("    do      ", "dim"), (escape(finding.remedy), "")]
        yield [("    rule    ", "dim"), (self._named(finding.rule), "dim")]

    def _summary(self) -> Line:
        counts: dict[str, int] = {}
        for file in self._report.files:
            counts[file.verdict] = counts.get(file.verdict, 0) + 1
        parts = [f"{count:,} {verdict}" for verdict, count in sorted(counts.items())]
        if self._report.allowed:
            parts.append(many(self._report.allowed, "finding") + " allowed")
        if self._report.excluded:
            parts.append(f"{self._report.excluded:,} excluded")
        if self._report.skipped:
            parts.append(f"{self._report.skipped:,} skipped (no model files)")
        total = f"{many(len(self._report.files), 'file')}: " + ", ".join(parts)
        return [(f"{total}; {size(self._report.bytes_not_read)} not read", "dim")]


def _program(program: Explained) -> Iterator[Line]:
    """A program, its bytes in front, and below each line that matters what it means."""
    where = escape(program.where) or "the file itself"
    size_ = number(program.end - program.start)
    head = f"{where}: a pickle of protocol {program.protocol}, {size_} bytes from {program.start}"
    yield [("  program ", "bold"), (head, "dim")]
    for line in program.lines:
        yield from _explained(line)


def _explained(line: ExplainedLine) -> Iterator[Line]:
    style = "" if line.severity == "safe" else STYLE[line.severity]
    offset = "" if line.offset is None else str(line.offset)
    text = line.text.lstrip(" ")
    # The label takes the indentation along: what does not fit goes on below the text.
    label = f"{_MARKS.get(line.severity, ''):>4}{offset:>9}  {' ' * (len(line.text) - len(text))}"
    yield [(label, style or "dim"), (text, style)]
    if line.gain:
        yield [(f"{'':15}^ {_LEADS[line.severity]}: ", style), (line.gain, "")]
