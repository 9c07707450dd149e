"""`tensorkeep verify`"""

from __future__ import annotations

import click

from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import Line, many, note_lines, show, show_json
from tensorkeep.cli.progress import reporter
from tensorkeep.errors import escape
from tensorkeep.verifying import VerifyReport, verify


@click.command("verify")
@click.argument("target", type=EXISTING)
@FORMAT
def command(target: str, form: str) -> int:
    """Check a file's structure, and its checksums where it carries any.

    Exit code: 0 if everything holds, 1 if something is damaged, 2 if it could not be checked.

    \b
    Examples:
      tensorkeep verify model.pth
      tensorkeep verify --format json model.safetensors.index.json
    """
    report = verify(target, reporter=reporter())
    if form == "json":
        show_json(report.to_dict())
    else:
        show(_lines(report))
        note_lines(report.notes)
    return 0 if report.ok else 1


def _lines(report: VerifyReport) -> list[Line]:
    path = (escape(report.path), "bold")
    checked = "checksums and structure" if report.checked == "digests" else "structure"
    if report.ok:
        what = f"  {checked} of {many(report.tensors, 'tensor')}"
        return [[("whole      ", "bold green"), path, (what, "dim")]]
    lines: list[Line] = [[("damaged    ", "bold red"), path]]
    for damage in report.damaged[:50]:
        name = f"{escape(damage.tensor)} in " if damage.tensor else ""
        wanted = f"expected {escape(damage.expected)}, got " if damage.expected else ""
        lines.append(f"  {name}{escape(damage.file)}: {wanted}{escape(damage.got)}")
    if len(report.damaged) > 50:
        lines.append(f"  and {len(report.damaged) - 50} more")
    return lines
