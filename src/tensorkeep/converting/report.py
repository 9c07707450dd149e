"""What `convert` says about what it wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tensorkeep.facts import Verdict


@dataclass(slots=True)
class ConvertReport:
    """What was written, or would be. `nbytes` counts tensor bytes; tied tensors once.

    `left_out` is pairs of a name and why; `cast` the names that changed their dtype;
    `verified` is how many tensors were read back and compared, None if nobody asked; `effect` is
    what the edits did, in words; `lost` is, per tensor, what casting lost: known when written.
    """

    source: str
    destination: str
    format: str
    section: str
    tensors: int
    nbytes: int
    tied: dict[str, str]
    cast: list[str]
    left_out: list[tuple[str, str]]
    notes: list[str]
    files: list[str]
    verdict: Verdict
    dry_run: bool
    verified: int | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    edits: list[dict[str, Any]] = field(default_factory=list)
    effect: str = ""
    lost: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": 1,
            "source": self.source,
            "destination": self.destination,
            "format": self.format,
            "section": self.section,
            "dry_run": self.dry_run,
            "verdict": self.verdict,
            "files": self.files,
            "bytes": self.nbytes,
            "tensors": self.outputs,
            "tied": self.tied,
            "cast": self.cast,
            "lost": self.lost,
            "edits": self.edits,
            "left_out": [{"name": name, "why": why} for name, why in self.left_out],
            "notes": self.notes,
            "verified": self.verified,
        }
