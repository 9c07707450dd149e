"""Where a checkpoint comes from: what a writer records of its sources and of what it did to them.

One key of the metadata, `tensorkeep.lineage`: a JSON list, one step for each time that tensors
were changed, the oldest first. Names of files and no paths: where they lay is nobody's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

PREFIX = "tensorkeep."
LINEAGE = f"{PREFIX}lineage"
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
