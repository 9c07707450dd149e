"""`tensorkeep guard`"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import click

from tensorkeep.cli.output import Line, talk
from tensorkeep.errors import AccessDenied, BadArgument
from tensorkeep.live.guard_log import STARTED, as_record, summarise
from tensorkeep.live.held import trusted

_STARTUP = Path(__file__).resolve().parent / "startup"
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_MOST_LINES = 20


@click.command("guard", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--require", type=click.Choice(["safe"]), help="Refuse files that are not safe.")
@click.option(
    "--trust",
    metavar="NAME",
    multiple=True,
    help="A class whose objects files may hold (package.module.Class); may be given several times.",
)
@click.option("--log", metavar="FILE", help="Add a line of JSON to FILE for each load.")
def command(command: tuple[str, ...], require: str | None, trust: tuple[str, ...], log: str) -> int:
    """Run a Python program with torch.load replaced by a reader that runs nothing.

    COMMAND and every Python process that it starts are guarded. The exit code is its own.

    \b
    Examples:
      tensorkeep guard -- python app.py
      tensorkeep guard --require safe --trust mypkg.models.Net -- torchrun train.py
    """
    trusted(trust)  # what is wrong about it is said now, and once
    with _log_file(log) as (path, begin):
        setting = {"require": require, "trust": list(trust), "log": path}
        code = _run(command, {**os.environ, **_environment(setting)})
        talk(_summary(path, begin))
    return code


def _environment(setting: dict[str, Any]) -> dict[str, str]:
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(_STARTUP), before] if before else [str(_STARTUP)])
    return {"PYTHONPATH": path, "TENSORKEEP_GUARD": json.dumps(setting)}


@contextmanager
def _log_file(wanted: str | None) -> Iterator[tuple[str, int]]:
    """A file that all processes write to, and where in it this run begins."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="tensorkeep-guard-") as folder:
            yield str(Path(folder) / "log.jsonl"), 0
        return
    path = Path(wanted).absolute()
    try:
        with path.open("ab") as file:
            begin = file.tell()
    except OSError as error:
        raise AccessDenied(wanted, expected="a log to write to", got=error.strerror) from error
    yield str(path), begin


def _run(command: tuple[str, ...], environment: dict[str, str]) -> int:
    """Run it with our standard streams; signals are handed on. Its exit code, as a shell has it."""
    running: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _frame: object) -> None:
        # From a terminal it came to the program as well.
        if running and not (number == signal.SIGINT and _in_foreground()):
            with suppress(ProcessLookupError):
                running[0].send_signal(number)

    before = {}
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        # Whoever ignores a signal (nohup) wants the program to ignore it, too.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, hand_on)
    try:
        running.append(_started(command, environment))
        code = running[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _started(command: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        # What the shell opened for the program (`<(...)`, `3<file`) stays open; Python's own files
        # are not inherited anyway.
        return subprocess.Popen(command, env=environment, close_fds=False)  # noqa: S603
    except OSError as error:
        raise BadArgument(
            "COMMAND", expected="a program that can be run", got=f"{command[0]}: {error.strerror}"
        ) from error


def _in_foreground() -> bool:
    """Whether this is what the terminal's Ctrl-C reaches."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _summary(path: str, begin: int) -> list[Line]:
    records = iter(_records(path, begin))
    label = ("guard: ", "bold")
    one = next(records, None)
    if one is None:
        text = "no Python started that looks at its environment (-I, -E, -S?): nothing was guarded"
        return [[label, (text, "yellow")]]
    loads = (record for record in chain([one], records) if record["outcome"] != STARTED)
    first, *more = summarise(loads)
    lines: list[Line] = [[label, (first, "")]]
    lines += [[label, (line, "")] for line in more[:_MOST_LINES]]
    if len(more) > _MOST_LINES:
        lines.append([label, (f"{len(more) - _MOST_LINES} more (--log FILE has them all)", "")])
    return lines


def _records(path: str, begin: int) -> Iterator[dict[str, Any]]:
    """One by one: a program may load for days. The program can reach the file as well, and no more
    than our own lines are taken from it.
    """
    with suppress(OSError), Path(path).open("rb") as file:
        file.seek(begin)
        for line in file:
            record = as_record(line)
            if record is not None:
                yield record
