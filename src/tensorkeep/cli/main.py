"""The group of verbs, and what becomes of errors: one sentence to stderr and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from tensorkeep.cli.output import error_line
from tensorkeep.errors import Interrupted, TensorkeepError

COULD_NOT_FINISH = 2
# Verb: the module that holds its command.
VERBS = {
    "scan": "tensorkeep.cli.scan",
    "inspect": "tensorkeep.cli.inspect",
    "convert": "tensorkeep.cli.convert",
    "verify": "tensorkeep.cli.verify",
}


class Verbs(click.Group):
    """Imports a verb's module when the verb is called: start-up time is the answer's time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user needs them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        module = VERBS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(module).command
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="tensorkeep")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Read PyTorch checkpoints without running what is in them.

    \b
    Examples:
      tensorkeep scan model.pth
      tensorkeep convert model.pth model.safetensors
    """
    ctx.obj = {"debug": debug}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, 1 for findings or damage, 2 if it could not finish."""
    # An index of 100,000 tensors is a million objects that all live: collecting finds nothing.
    gc.set_threshold(200_000, 50, 50)
    signal.signal(signal.SIGTERM, _terminated)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(given, prog_name="tensorkeep", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has seen enough. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (Exception, KeyboardInterrupt) as error:  # whatever it is, the user gets a sentence
        if "--debug" in given:
            raise
        code = _explain(error)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code if error.exit_code else COULD_NOT_FINISH
    if isinstance(error, TensorkeepError):
        error_line(error.sentence())
    elif isinstance(error, click.Abort | KeyboardInterrupt):
        error_line("interrupted; nothing was left behind")
    elif isinstance(error, MemoryError):
        error_line("out of memory")
    else:
        what = f"{type(error).__name__}: {error}"
        error_line(f"{what}. This is a defect of tensorkeep: please report it with --debug.")
    return COULD_NOT_FINISH


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted("tensorkeep", got="SIGTERM", remedy="Nothing was left behind.")
