"""The group of verbs, and what becomes of errors: one sentence to stderr and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from tensorkeep.cli.output import error_line
from tensorkeep.errors import BadArgument, Interrupted, TensorkeepError

COULD_NOT_FINISH = 2
# Verb: the module that holds its command.
VERBS = {
    "scan": "tensorkeep.cli.scan",
    "inspect": "tensorkeep.cli.inspect",
    "diff": "tensorkeep.cli.diff",
    "convert": "tensorkeep.cli.convert",
    "quantize": "tensorkeep.cli.quantize",
    "match": "tensorkeep.cli.match",
    "verify": "tensorkeep.cli.verify",
    "runs": "tensorkeep.cli.runs",
    "prove-resume": "tensorkeep.cli.prove_resume",
    "guard": "tensorkeep.cli.guard",
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
    gc.set_threshold(500_000, 50, 50)
    _prepare()
    given, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(given or ["--help"], prog_name="tensorkeep", standalone_mode=False)
    except (Exception, _Stopped) as error:  # whatever it is, the user gets a sentence
        if debug:
            import traceback

            traceback.print_exc()
        code = _explain(error)
    # Python would search everything for cycles before it ends: a tenth of a short command's time.
    gc.freeze()
    sys.exit(code if isinstance(code, int) else 0)


class _Stopped(BaseException):
    """A signal. No Exception: what catches errors about a file must not catch this one."""


def _prepare() -> None:
    for stream in ("stdin", "stdout", "stderr"):
        if getattr(sys, stream) is None:
            # Closed by the caller (`>&-`): the next file opened would get its number.
            empty = Path(os.devnull).open("r" if stream == "stdin" else "w")  # noqa: SIM115
            setattr(sys, stream, empty)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup and shells that start a job in the background have said: ignore it.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    # A second one must not interrupt the clearing up after the first.
    signal.signal(number, signal.SIG_IGN)
    raise _Stopped(signal.Signals(number).name)


def _without_debug(given: list[str]) -> tuple[list[str], bool]:
    """`--debug` may stand anywhere; click would take it in front of the verb only."""
    end = given.index("--") if "--" in given else len(given)
    kept = [argument for argument in given[:end] if argument != "--debug"]
    return kept + given[end:], len(kept) < end


def _explain(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        error_line(_usage(error).sentence())
    elif isinstance(error, TensorkeepError):
        error_line(error.sentence())
    elif isinstance(error, _Stopped):
        error_line(Interrupted("stopped", got=error, remedy="Nothing was left behind.").sentence())
    elif isinstance(error, MemoryError):
        error_line("out of memory. Nothing was left behind.")
    else:
        what = f"{type(error).__name__}: {error}"
        error_line(f"{what}. This is a defect of tensorkeep: please report it with --debug.")
    return COULD_NOT_FINISH


def _usage(error: click.ClickException) -> BadArgument:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "tensorkeep"
    text = " ".join(error.format_message().split()).rstrip(".")
    return BadArgument(f"{text[:1].lower()}{text[1:]}", remedy=f"See {path} --help.")
