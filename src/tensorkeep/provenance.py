"""Where a checkpoint comes from: what a writer records of its sources and of what it did to them.

One key of the metadata, `tensorkeep.lineage`: a JSON list, one step for each time that tensors
were changed, the oldest first. Names of files and no paths: where they lay is nobody's business.
"""

from __future__ import annotations

import functools
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata as packages
from pathlib import Path, PurePath
from typing import Any

PREFIX = "tensorkeep."
LINEAGE = f"{PREFIX}lineage"
# What a file that was saved from memory says of its making; JSON, see `facts`.
SAVED = f"{PREFIX}saved"
_PATIENCE = 10
# The member of a zip for a format without text of its own; torch reads only those that it knows.
RECORD = "tensorkeep.json"


def file_facts(path: str, nbytes: int, sha256: str = "") -> dict[str, Any]:
    """A source file: its name, its size in bytes and, if somebody read it all, its digest."""
    facts: dict[str, Any] = {"name": PurePath(path).name, "bytes": nbytes}
    return facts | ({"sha256": sha256} if sha256 else {})


def index_digest(entries: Iterable[tuple[object, ...]]) -> str:
    """`sha256:...` over what an index says, which costs no tensor byte to know."""
    import hashlib

    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps(entry, default=str).encode("ascii") + b"\n")
    return f"sha256:{digest.hexdigest()}"


def extended(metadata: Mapping[str, str], step: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a source with one step more in its lineage."""
    try:
        steps = json.loads(metadata.get(LINEAGE, "[]"))
    except (ValueError, RecursionError):
        steps = []
    if not isinstance(steps, list):
        steps = []
    return {**metadata, LINEAGE: json.dumps([*steps, step], ensure_ascii=False)}


def facts(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Who makes a file now: `tensorkeep`, `torch`, `python`, `git`, `command`, `config`.

    `git`: `{"commit", "dirty"}` of the current folder, None outside a repository; `torch`: None
    where it was not imported. `command` is the program's name without its folder, and its
    arguments. JSON.
    """
    torch = sys.modules.get("torch")
    return {
        "tensorkeep": _version(),
        "torch": None if torch is None else str(torch.__version__),
        "python": platform.python_version(),
        "git": _git(),
        "command": [Path(sys.argv[0]).name if sys.argv else "", *sys.argv[1:]],
        "config": dict(config or {}),
    }


def _version() -> str:
    try:
        return packages.version("tensorkeep")
    except packages.PackageNotFoundError:  # a copy that nobody installed
        return "unknown"


@functools.cache
def _git() -> dict[str, Any] | None:
    commit = _said("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _said("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _said(*arguments: str) -> str | None:
    """What the user's git answers; None if there is none, or it has nothing to say in time."""
    import subprocess

    try:
        made = subprocess.run(  # noqa: S603 - the words are ours
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return made.stdout.decode("utf-8", "replace").strip()
