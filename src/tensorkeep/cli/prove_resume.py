"""`tensorkeep prove-resume`"""

from __future__ import annotations

import sys

import click

from tensorkeep.cli.options import FORMAT
from tensorkeep.cli.output import Line, coloured, show, show_json, talk
from tensorkeep.errors import DidNotFinish, escape
from tensorkeep.progress import Reporter


@click.command("prove-resume")
@click.argument("function", metavar="PACKAGE.MODULE:FUNCTION")
@click.option("--steps", type=int, required=True, metavar="N", help="Train until this step.")
@click.option("--kill-at", type=int, multiple=True, metavar="STEP", help="Kill it here; repeat.")
@click.option("--kills", type=int, default=2, show_default=True, help="So many random kills.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of generators and kills.")
@click.option("--folder", metavar="DIR", help="Keep the runs here; else they are deleted.")
@FORMAT
def command(
    function: str,
    steps: int,
    kill_at: tuple[int, ...],
    kills: int,
    seed: int,
    folder: str | None,
    form: str,
) -> int:
    """Prove that a training that is killed and resumed ends as if it had not been.

    The function is called as FUNCTION(run, steps) with a tk.Run, in child processes: twice to its
    end, then killed with SIGKILL and resumed. All that it tracks is compared bit for bit. It is
    importable from the current folder, and is the only code that is run.
    Exit code: 0 if proven, 1 if something differs, 2 if it could not be finished.

    \b
    Examples:
      tensorkeep prove-resume mypackage.training:train --steps 50
      tensorkeep prove-resume train:train --steps 50 --kill-at 20 --format json
    """
    from tensorkeep.training.proving import prove_resume

    try:
        report = prove_resume(
            function,
            steps=steps,
            kill_at=list(kill_at) or None,
            kills=kills,
            seed=seed,
            folder=folder,
            reporter=_Told(),
        )
    except DidNotFinish as error:
        talk([[("  | ", "dim"), (escape(line), "")] for line in error.output])
        raise
    if form == "json":
        show_json(report.to_dict())
    else:
        label = report.verdict.ljust(11)
        style = "bold green" if report.proven else "bold red"
        lines: list[Line] = [[(label, style), (escape(report.function), "bold")]]
        show(lines + [[("  ", ""), (escape(line), "")] for line in report.sentences()])
    return 0 if report.proven else 1


class _Told(Reporter):
    """A line for each child: how long one takes is the function's affair."""

    def count(self, done: int, total: int, what: str) -> None:
        """See `Reporter`."""
        if coloured(sys.stderr):
            talk([[(f"{done} of {total} ", "dim"), (escape(what), "")]])
