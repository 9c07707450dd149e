"""The other scanners, each in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import environment

# fickling's command reads bare pickles only; archives are read by this function of its library.
_FICKLING = """
import sys
from fickling import scan_zip_archive
found = scan_zip_archive(sys.argv[1])
sys.exit(any(part.severity.name != "LIKELY_SAFE" for part in found.values()))
"""
# What is run on a file, in the environment's bin: the verdict only. fickling 0.1.12 does not
# name all that it imports.
COMMANDS = {
    "picklescan": (["picklescan==1.0.5"], ["picklescan", "--path"]),
    "fickling": (["fickling", "typing_extensions"], ["python", "-c", _FICKLING]),
    "modelscan": (["modelscan"], ["modelscan", "--path"]),
    "modelaudit": (["modelaudit"], ["modelaudit", "scan"]),
}
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
    wanted, (program, *rest) = COMMANDS[name]
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
    return Peer(name, version, (str(home / "bin" / program), *rest))


def _call(*command: str) -> str:
    done = subprocess.run(
        command, check=True, timeout=_PATIENCE_S, env=environment(), capture_output=True, text=True
    )
    return done.stdout
