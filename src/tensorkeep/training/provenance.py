"""What a checkpoint says of where it comes from: versions, git, the command line."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PATIENCE = 10


def facts(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """JSON: `tensorkeep`, `torch`, `python`, `git` (or None), `command`, `config`."""
    return {
        "tensorkeep": metadata.version("tensorkeep"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "git": _git(),
        "command": [Path(sys.argv[0]).name if sys.argv else "", *sys.argv[1:]],
        "config": dict(config or {}),
    }


@functools.cache
def _git() -> dict[str, Any] | None:
    """The commit of the current folder, and whether its tracked files differ from it."""
    commit = _said("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _said("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _said(*arguments: str) -> str | None:
    try:
        # Whatever `git` the user has; the words are ours.
        made = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return made.stdout.decode("utf-8", "replace").strip()
