"""What a scan says, as records: of one file, and of everything that was asked about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tensorkeep.errors import TensorkeepError
from tensorkeep.facts import Finding, Verdict
from tensorkeep.scanning.explaining import Explained
from tensorkeep.scanning.rules import judge_error
from tensorkeep.scanning.verdicts import verdict, worst


@dataclass(slots=True)
class FileReport:
    """The verdict on one file. `bytes_not_read`: how much of it the verdict does not rest on.

    `programs`: its pickles in words, if that was asked for. `digest`: "sha256:..." of the whole
    file, if that was asked for and there are findings. `allowed`: which findings (by their place
    in the list) do not count, each with the reason; the verdict is what it is without them.
    """

    path: str
    verdict: Verdict
    format: str
    findings: list[Finding]
    bytes_not_read: int
    programs: list[Explained] | None = None
    digest: str = ""
    allowed: dict[int, str] = field(default_factory=dict)

    @property
    def counted(self) -> Verdict:
        """The verdict of the findings that count."""
        return verdict(f for at, f in enumerate(self.findings) if at not in self.allowed)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        made: dict[str, Any] = {
            "path": self.path,
            "verdict": self.verdict,
            "format": self.format,
            "findings": [
                {**finding.to_dict(), "allowed": self.allowed.get(at)}
                for at, finding in enumerate(self.findings)
            ],
        }
        if self.digest:
            made["digest"] = self.digest
        if self.programs is not None:
            made["programs"] = [program.to_dict() for program in self.programs]
        return made


@dataclass(slots=True)
class ScanReport:
    """Verdicts on all files of a target.

    `skipped` counts files that are no model at all, `excluded` those that the settings leave out.
    """

    files: list[FileReport] = field(default_factory=list)
    skipped: int = 0
    depth: str = "default"
    excluded: int = 0

    @property
    def allowed(self) -> int:
        """How many findings do not count."""
        return sum(len(file.allowed) for file in self.files)

    @property
    def counted(self) -> Verdict:
        """The verdict of the findings that count: what the exit code of the command follows."""
        return worst(file.counted for file in self.files)

    @property
    def verdict(self) -> Verdict:
        """The worst of all files: dangerous, unknown, suspicious, safe."""
        return verdict([finding for file in self.files for finding in file.findings])

    @property
    def findings(self) -> list[Finding]:
        """Those of all files."""
        return [finding for file in self.files for finding in file.findings]

    @property
    def bytes_not_read(self) -> int:
        """Summed over all files."""
        return sum(file.bytes_not_read for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": 1,
            "verdict": self.verdict,
            "counted": self.counted,
            "depth": self.depth,
            "bytes_not_read": self.bytes_not_read,
            "skipped": self.skipped,
            "excluded": self.excluded,
            "allowed": self.allowed,
            "files": [file.to_dict() for file in self.files],
        }


def failure(path: str, error: TensorkeepError) -> FileReport:
    """The report on what could not be read at all."""
    findings = [judge_error(error, path)]
    return FileReport(path, verdict(findings), "unknown", findings, 0)
