"""Versions of the layout of training checkpoints: each older one is brought to the present one.

A row is never taken out: what was written once is read for ever (`tests/corpus/runs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tensorkeep.errors import Damaged, Unsupported

KIND = "tensorkeep training checkpoint"
CURRENT = 1

Migration = Callable[[dict[str, Any]], dict[str, Any]]
# From the version of the key to the next.
MIGRATIONS: Mapping[int, Migration] = {}


def migrated(content: dict[str, Any], subject: str) -> dict[str, Any]:
    """`content` as version `CURRENT` would have it.

    Raises `Damaged` if it is no manifest, `Unsupported` if a newer tensorkeep wrote it.
    """
    version = content.get("version")
    if content.get("kind") != KIND or type(version) is not int or version < 1:
        got = f"{content.get('kind')!r}, version {version!r}"
        raise Damaged(subject, expected=f"{KIND!r} and its version", got=got)
    if version > CURRENT:
        raise Unsupported(
            subject,
            expected=f"version {CURRENT} or older",
            got=f"version {version}",
            remedy="Install the tensorkeep that wrote it, or a newer one.",
        )
    for each in range(version, CURRENT):
        content = MIGRATIONS[each](content)
    return content
