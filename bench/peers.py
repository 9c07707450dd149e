"""The other scanners, each in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import environment

# What is run on a file. They are asked for their verdict only.
COMMANDS = {
    "picklescan": ["picklescan", "--path"],
    "fickling": ["fickling", "--check-safety"],
    "modelscan": ["modelscan", "--path"],
    "modelaudit": ["modelaudit", "scan"],
}
PINNED = {"picklescan": "==1.0.5"}
_PATIENCE_S = 300


@dataclass
class Peer:
    """A scanner that is there (`command`), or the reason why it is not (`missing`)."""

    name: str
    version: str = ""
    command: tuple[str, ...] = ()
    missing: str = ""


def install(name: str, folder: Path) -> Peer:
    """Make its environment unless it is there. What cannot be installed is reported."""
    home = folder / f"peer-{name}"
    program = home / "bin" / COMMANDS[name][0]
    try:
        if not program.exists():
            print(f"installing {name} ...", file=sys.stderr)
            _call(sys.executable, "-m", "venv", str(home))
            wanted = name + PINNED.get(name, "")
            _call(str(home / "bin/pip"), "install", "--quiet", wanted)
        ask = f"from importlib.metadata import version; print(version({name!r}))"
        version = _call(str(home / "bin/python"), "-c", ask).strip()
    except (subprocess.SubprocessError, OSError) as error:
        return Peer(name, missing=f"could not be installed ({type(error).__name__})")
    return Peer(name, version, (str(program), *COMMANDS[name][1:]))


def _call(*command: str) -> str:
    done = subprocess.run(
        command, check=True, timeout=_PATIENCE_S, env=environment(), capture_output=True, text=True
    )
    return done.stdout
