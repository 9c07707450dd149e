"""The command in this process (fast) and in a child (streams, terminals, environment)."""

from __future__ import annotations

import gc
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

import pytest
import torch

from tensorkeep.cli import main

HOSTILE_NAMES = [
    "x[/bold]",
    "[link=http://evil.example]click[/link]",
    "\x1b]0;owned\x07title",
    "\x1b[31mred\x1b[0m",
    "\x9b31mcsi",
    "a\u202egpj.exe",
    "new\nline\r\tand more",
    "\ud800surrogate",
    "nul\x00inside",
    "L" * 10_000,
    "",
    "日本語.weight",
    ":smile:",
]


# A progress bar is shown for work that lasts; here for any work.
IMPATIENT = """
import sys
from tensorkeep.cli import main, progress
progress._PATIENCE = -1
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Result:
    """How the command ended."""

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """What it said on stderr, which must be one sentence."""
        assert self.err.startswith("tensorkeep: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        assert "defect" not in self.err
        return self.err


@pytest.fixture
def cli(capsys):
    """Run the command in this process."""
    before, signals = gc.get_threshold(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in signals}

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(exited.value.code, out, err)

    yield run
    gc.set_threshold(*before)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def child():
    """Run the command in a child; keyword arguments are those of `subprocess.run`."""

    def run(*arguments, env=(), **options):
        done = subprocess.run(
            [sys.executable, "-m", "tensorkeep", *map(str, arguments)],
            env={**os.environ, **dict(env)},
            capture_output=True,
            check=False,
            timeout=60,
            **options,
        )
        out, err = (part.decode("utf-8", "surrogateescape") for part in (done.stdout, done.stderr))
        return Result(done.returncode, out, err)

    return run


@pytest.fixture
def terminal():
    """Run the command on a terminal of so many columns; gives its exit code and all it wrote."""

    def run(*arguments, columns=80, env=(), impatient=False):
        parent, side = pty.openpty()
        ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        program = ["-c", IMPATIENT] if impatient else ["-m", "tensorkeep"]
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=side,
            stderr=side,
            env={**clean, "TERM": "xterm-256color", "PYTHONUTF8": "1", **dict(env)},
        )
        os.close(side)
        text, deadline = b"", time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([parent], [], [], 0.5)[0]:
                continue
            try:
                piece = os.read(parent, 65536)
            except OSError:  # the last writer has closed its side
                break
            if not piece:
                break
            text += piece
        os.close(parent)
        return Result(process.wait(60), text.decode("utf-8", "replace").replace("\r\n", "\n"), "")

    return run


@pytest.fixture(scope="session")
def hostile_names():
    """Names that would do something to a terminal, a markup language or a table."""
    return HOSTILE_NAMES


@pytest.fixture(scope="session")
def named(tmp_path_factory) -> Path:
    """A checkpoint whose tensors and values have the hostile names."""
    path = tmp_path_factory.mktemp("named") / "named.pth"
    torch.save({name: torch.full((at + 1,), at) for at, name in enumerate(HOSTILE_NAMES)}, path)
    return path


@pytest.fixture(scope="session")
def odd_values(tmp_path_factory) -> Path:
    """A training checkpoint with values that JSON and terminals have trouble with."""
    path = tmp_path_factory.mktemp("values") / "values.ckpt"
    values = {
        "nan": float("nan"),
        "inf": float("inf"),
        "less": -float("inf"),
        "bytes": b"\x1b[31m",
        "text": "\x1b]0;owned\x07 [/bold] \u202e \ud800",
        "list": [1, [2, {"deep": None}]],
        "\x1b[5mkey": 1,
    }
    torch.save({"state_dict": {"a.w": torch.ones(2, 2)}, "epoch": 3, "extra": values}, path)
    return path
