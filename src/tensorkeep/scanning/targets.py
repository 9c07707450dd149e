"""What is scanned: a file, bytes, an index, or every file below a directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorkeep import formats
from tensorkeep.checkpoints import index
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.errors import NotACheckpoint, ReadError, StoreError, TensorkeepError
from tensorkeep.facts import Anomaly, Finding, Limits, Verdict
from tensorkeep.formats import foreign
from tensorkeep.formats.contents import Contents
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.scanning.rules import judge_anomalies, judge_error, judge_program
from tensorkeep.scanning.verdicts import verdict
from tensorkeep.stores import Blob
from tensorkeep.stores._errors import translated
from tensorkeep.stores.local import LocalFolder
from tensorkeep.stores.opening import open_blob, path_of

_MODEL_SUFFIXES = (
    ".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl", ".pickle", ".joblib", ".pt2",
    ".gguf", ".h5", ".hdf5", ".keras", ".onnx", ".npy", ".npz", ".nemo", ".mar", ".dill",
)  # fmt: skip


@dataclass(slots=True)
class FileReport:
    """The verdict on one file. `bytes_not_read`: how much of it the verdict does not rest on."""

    path: str
    verdict: Verdict
    format: str
    findings: list[Finding]
    bytes_not_read: int

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "path": self.path,
            "verdict": self.verdict,
            "format": self.format,
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(slots=True)
class ScanReport:
    """Verdicts on all files of a target. `skipped` counts files that are no model at all."""

    files: list[FileReport] = field(default_factory=list)
    skipped: int = 0
    depth: str = "default"

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
            "depth": self.depth,
            "bytes_not_read": self.bytes_not_read,
            "skipped": self.skipped,
            "files": [file.to_dict() for file in self.files],
        }


def scan(
    target: Source,
    *,
    deep: bool = False,
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> ScanReport:
    """Say what loading `target` would run, and what about it is odd, without running any of it.

    `target`: what `open` takes; a directory is walked and every file in it judged alone. By
    default all bytes are read that a loader could execute; `deep` also reads the tensors' bytes,
    checks their checksums and looks for pickles in them. A file that cannot be read gets the
    verdict "unknown", it raises nothing. Raises `StoreError` if the target itself is not there,
    and `NotACheckpoint` for a directory with nothing to scan.
    """
    limits = limits or Limits()
    report = ScanReport(depth="deep" if deep else "default")
    path = path_of(target)
    if path is not None and path.is_dir():
        _walk(path, report, deep, limits, reporter)
    elif path is not None and path.name.endswith(".index.json"):
        report.files.append(_scan_index(path, deep, limits))
    else:
        with open_blob(target) as blob:
            report.files.append(_scan_blob(blob, deep, limits))
    return report


def judge(ckpt: Checkpoint) -> tuple[Verdict, list[Finding]]:
    """The verdict on an opened checkpoint, from what opening it has read."""
    findings = _findings(ckpt.contents)
    return verdict(findings), findings


def _findings(contents: Contents, more: Iterable[Anomaly] = ()) -> list[Finding]:
    findings = []
    for where, program in contents.programs:
        findings += judge_program(program, where)
    findings += judge_anomalies(list(dict.fromkeys([*contents.anomalies, *more])), "")
    own = {id(program.error) for _, program in contents.programs}
    if contents.error is not None and id(contents.error) not in own:
        findings.append(judge_error(contents.error, contents.format))
    return findings


def _scan_index(path: Path, deep: bool, limits: Limits) -> FileReport:
    try:
        with open_checkpoint(path, limits=limits) as ckpt:
            before = ckpt.bytes_read
            findings = _examine(ckpt.contents, deep, limits, os.fspath(path))
            audited = ckpt.bytes_read - before if deep else 0
            rest = _rest(ckpt.contents, ckpt.size, ckpt.bytes_read, audited)
            return FileReport(os.fspath(path), verdict(findings), ckpt.format, findings, rest)
    except ReadError as error:
        report = failure(os.fspath(path), error)
        # One broken part must not hide what loading the others, or its own beginning, would run.
        for part in _named_in(path, limits):
            with suppress(StoreError), open_blob(part) as blob:
                report.findings += _scan_blob(blob, deep, limits).findings
        report.verdict = verdict(report.findings)
        return report


def _named_in(path: Path, limits: Limits) -> Iterator[Path]:
    """The files beside an index that its text names anywhere, however damaged it is."""
    with open_blob(path) as blob:
        text = blob.read(0, min(blob.size, limits.max_json_bytes))
    for name in LocalFolder(path.parent).names():
        if name != path.name and os.fsencode(name) in text:
            yield path.parent / name


def _scan_blob(blob: Blob, deep: bool, limits: Limits) -> FileReport:
    findings: list[Finding] = []
    name, rest = "unknown", max(blob.size - blob.bytes_read, 0)
    try:
        contents = formats.examine(blob, limits)
        name, before = contents.format, blob.bytes_read
        findings += _examine(contents, deep, limits, blob.name)
        audited = blob.bytes_read - before if deep else 0
        rest = _rest(contents, blob.size, blob.bytes_read, audited)
    except TensorkeepError as error:
        findings.append(judge_error(error, blob.name))
    return FileReport(blob.name, verdict(findings), name, findings, rest)


def _rest(contents: Contents, size: int, read: int, audited: int) -> int:
    """Bytes that the verdict does not rest on: those of the storages, unless they were audited.

    Size less bytes read alone would say too little: the end of a file is read for its directory,
    whatever lies there, and some of it twice.
    """
    stored = min(sum(storage.nbytes for storage in contents.storages.values()), size)
    return max(stored - audited, size - read, 0)


def _examine(contents: Contents, deep: bool, limits: Limits, subject: str) -> list[Finding]:
    errors: list[Finding] = []
    found: list[Anomaly] = []
    try:
        if contents.error is None:
            # Walking the value makes the lens look at every tensor: views beyond their storage.
            index.build(contents, limits, subject)
        found.extend(contents.audit(deep))
    except TensorkeepError as error:
        errors.append(judge_error(error, subject))
    return [*_findings(contents, found), *errors]


def _walk(folder: Path, report: ScanReport, deep: bool, limits: Limits, reporter: Reporter) -> None:
    files = [(path, _size(path)) for path in _files(folder, report)]
    reporter.start("scanning", sum(size for _, size in files))
    try:
        for path, size in files:
            scanned = _scan_if_model(path, deep, limits)
            if scanned is None:
                report.skipped += 1
            else:
                report.files.append(scanned)
            reporter.advance(size)
    finally:
        reporter.finish()
    if not report.files:
        raise NotACheckpoint(
            os.fspath(folder),
            expected="a directory with model files in it",
            got=f"{report.skipped} other files" if report.skipped else "an empty one",
        )


def _files(folder: Path, report: ScanReport) -> Iterator[Path]:
    """Every file below `folder`. One folder that cannot be listed makes the verdict unknown."""

    def closed(error: OSError) -> None:
        told = translated(error, error.filename)
        if Path(error.filename) == folder:
            raise told
        report.files.append(failure(error.filename, told))

    for root, folders, names in os.walk(folder, onerror=closed):
        folders.sort()
        # Not followed: a link may lead anywhere, in a circle too.
        report.skipped += sum(Path(root, name).is_symlink() for name in folders)
        yield from (Path(root, name) for name in sorted(names))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def failure(path: str, error: TensorkeepError) -> FileReport:
    """The report on what could not be read at all."""
    findings = [judge_error(error, path)]
    return FileReport(path, verdict(findings), "unknown", findings, 0)


# What only an index and its parts together can be wrong about.
_INDEX_KINDS = ("tensor-not-in-index", "tensor-in-two-parts")


def _index_alone(path: Path, limits: Limits) -> FileReport:
    """Whether an index fits its parts, which the walk judges each for itself."""
    try:
        with open_checkpoint(path, limits=limits) as ckpt:
            odd = [a for a in ckpt.contents.anomalies if a.kind in _INDEX_KINDS]
            findings, name = judge_anomalies(odd, path.name), ckpt.format
    except (ReadError, StoreError) as error:
        findings, name = [judge_error(error, path.name)], "unknown"
    return FileReport(os.fspath(path), verdict(findings), name, findings, 0)


def _scan_if_model(path: Path, deep: bool, limits: Limits) -> FileReport | None:
    if path.name.endswith(".index.json"):
        return _index_alone(path, limits)
    suffix = path.suffix.lower() in _MODEL_SUFFIXES
    try:
        with open_blob(path) as blob:
            head = blob.read(0, min(formats.HEAD, blob.size))
            if suffix or formats.identify(blob) or foreign.model_kind(head):
                return _scan_blob(blob, deep, limits)
            return None
    except (StoreError, ReadError) as error:
        # What cannot be opened may be a model: it is counted, and never passes for safe.
        if not suffix and not path.is_file():
            return None
        return failure(os.fspath(path), error)
