"""`verify`: is every promise kept that the file makes about itself?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.checkpoints.sections import ALL
from tensorkeep.errors import Damaged, ReadError, TensorkeepError
from tensorkeep.facts import Limits
from tensorkeep.progress import SILENT, Reporter


@dataclass(frozen=True, slots=True)
class Damage:
    """One broken promise: in which file (or member), which tensor, what was promised and found."""

    file: str
    tensor: str
    expected: str
    got: str

    def to_dict(self) -> dict[str, str]:
        """The record as JSON holds it."""
        return {
            "file": self.file,
            "tensor": self.tensor,
            "expected": self.expected,
            "got": self.got,
        }


@dataclass(slots=True)
class VerifyReport:
    """`checked`: "digests" if the file carries checksums of its tensors, else "structure"."""

    path: str
    checked: str
    tensors: int = 0
    damaged: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": 1,
            "ok": self.ok,
            "checked": self.checked,
            "path": self.path,
            "tensors": self.tensors,
            "damaged": [damage.to_dict() for damage in self.damaged],
            "notes": self.notes,
        }


def verify(
    target: Source, *, limits: Limits | None = None, reporter: Reporter = SILENT
) -> VerifyReport:
    """Check the structure of `target`, and its checksums where it carries any.

    A file that opens and breaks a promise gives a report with `ok` False; so does one whose
    container is too damaged to open. Raises `StoreError`, `NotACheckpoint` and `Unsupported`.
    """
    try:
        with open_checkpoint(target, limits=limits) as ckpt:
            return _verify(ckpt, reporter)
    except ReadError as error:
        if not isinstance(error, Damaged):
            raise
        damage = Damage(error.subject, error.where, error.expected, error.got)
        return VerifyReport(error.subject, "structure", damaged=[damage])


def _verify(ckpt: Checkpoint, reporter: Reporter) -> VerifyReport:
    contents = ckpt.contents
    report = VerifyReport(ckpt.path, "structure", tensors=len(ckpt))
    reporter.start("verifying", ckpt.size)
    try:
        _structure(ckpt, report)
        _checksums(ckpt, report, reporter)
        found = list(contents.audit(False))
    finally:
        reporter.finish()
    for anomaly in dict.fromkeys([*contents.anomalies, *found]):
        if anomaly.kind == "bad-checksum":
            continue  # `_checksums` has compared them all
        report.damaged.append(Damage(anomaly.where or ckpt.path, "", "", anomaly.what))
    for where, error in contents.unreadable:
        report.damaged.append(Damage(where, "", error.expected, error.got))
    ckpt.check_unchanged()
    if report.checked == "structure":
        report.notes.append("the file carries no checksums: only its structure was checked")
    for name, why in ckpt.unread(ALL):
        report.notes.append(f"not read: {name} ({why})")
    return report


def _checksums(ckpt: Checkpoint, report: VerifyReport, reporter: Reporter) -> None:
    names, before = _names_by_storage(ckpt), ckpt.bytes_read
    for file, key, expected, got in ckpt.contents.verify():
        reporter.advance(ckpt.bytes_read - before)
        before = ckpt.bytes_read
        if expected or got:
            report.checked = "digests"
        if expected != got:
            report.damaged.append(Damage(file, names.get(key, key), expected, got))


def _structure(ckpt: Checkpoint, report: VerifyReport) -> None:
    for name, ref in ckpt.tensors.items():
        try:
            ref.record.check(name)
            ref.record.storage.require()
        except TensorkeepError as error:
            where = error.where or ckpt.path
            report.damaged.append(Damage(where, name, error.expected, error.got))


def _names_by_storage(ckpt: Checkpoint) -> dict[str, str]:
    """The first tensor of each storage: damage is named by what the user knows."""
    names: dict[str, str] = {}
    for name, ref in ckpt.tensors.items():
        names.setdefault(ref.record.storage.key, name)
    return names
