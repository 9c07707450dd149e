"""What a checkpoint's manifest says of itself, but for the digests, which come last."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tensorkeep.checkpoints.manifest import FileFacts, Manifest
from tensorkeep.errors import BadArgument


class Making:
    """The manifest, once the digests are there."""

    def __init__(
        self,
        step: int,
        parent: int | None,
        epoch: int,
        metrics: dict[str, float],
        facts: dict[str, Any],
        serial: int,
    ) -> None:
        self._fields = step, parent, epoch, metrics, facts
        self._serial = serial
        self._created = datetime.now(UTC).isoformat(timespec="milliseconds")

    def __call__(self, files: Mapping[str, FileFacts]) -> Manifest:
        """With the digests of its files."""
        step, parent, epoch, metrics, facts = self._fields
        rest = parent, epoch, metrics, facts, self._serial
        return Manifest(step, dict(files), self._created, *rest)


def step_number(step: object) -> int:
    """Raises `BadArgument`."""
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise BadArgument("step", expected="a whole number from 0 on", got=repr(step))
    return int(step)


def numbers(given: Mapping[str, float] | None) -> dict[str, float]:
    """The metrics of a step. Raises `BadArgument`."""
    made = {}
    for name, value in (given or {}).items():
        try:
            made[str(name)] = float(value)
        except (TypeError, ValueError) as error:
            raise BadArgument(f"metric {name}", expected="a number", got=repr(value)) from error
    return made
