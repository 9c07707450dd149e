"""The other scanners, each in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import HERE, environment

# What is installed, what its command is in the environment's bin, the function behind the command,
# its arguments before a path, and whether it takes folders. fickling's own command reads bare
# pickles only, so a few lines of ours choose by the file (fickling_file.py); and it does not name
# all that it imports. modelaudit would answer a second time from its cache.
COMMANDS = {
    "picklescan": (["picklescan==1.0.5"], "picklescan", "picklescan.cli:main", ("--path",), True),
    "fickling": (
        ["fickling", "typing_extensions"],
        "python",
        "fickling_file.py:main",
        (),
        False,
    ),
    "modelscan": (["modelscan"], "modelscan", "modelscan.cli:main", ("--path",), True),
    "modelaudit": (
        ["modelaudit"],
        "modelaudit",
        "modelaudit.cli:main",
        ("scan", "--no-cache", "--format", "json"),
        True,
    ),
}
_PATIENCE_S = 300


@dataclass
class Peer:
    """A scanner that is there (`command`), or the reason why it is not (`missing`).

    `entry` is the function that its command calls, `python` the interpreter that has it.
    """

    name: str
    version: str = ""
    command: tuple[str, ...] = ()
    entry: str = ""
    arguments: tuple[str, ...] = ()
    python: str = ""
    folders: bool = True
    missing: str = ""


def install(name: str, folder: Path) -> Peer:
    """Make its environment unless it is there. What cannot be installed is reported."""
    home = folder / f"peer-{name}"
    wanted, program, entry, arguments, folders = COMMANDS[name]
    try:
        if not (home / "installed").exists():
            print(f"installing {name} ...", file=sys.stderr)
            _call(sys.executable, "-m", "venv", str(home))
            _call(str(home / "bin/pip"), "install", "--quiet", *wanted)
            (home / "installed").touch()
        ask = f"import {name}; from importlib.metadata import version; print(version({name!r}))"
        version = _call(str(home / "bin/python"), "-c", ask).strip()
    except (subprocess.SubprocessError, OSError) as error:
        return Peer(name, missing=f"could not be installed ({type(error).__name__})")
    command = (str(home / "bin" / program), *arguments)
    if entry.partition(":")[0].endswith(".py"):
        command = (str(home / "bin/python"), str(HERE / entry.partition(":")[0]), *arguments)
    return Peer(name, version, command, entry, arguments, str(home / "bin/python"), folders)


def _call(*command: str) -> str:
    done = subprocess.run(
        command, check=True, timeout=_PATIENCE_S, env=environment(), capture_output=True, text=True
    )
    return done.stdout
