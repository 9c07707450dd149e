"""`scan`: a file, bytes, an index, or every file below a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tensorkeep.errors import ReadError, StoreError
from tensorkeep.facts import Limits
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.scanning.examining import examine, judge, not_read, scan_blob
from tensorkeep.scanning.explaining import programs_of
from tensorkeep.scanning.reports import FileReport, ScanReport, failure
from tensorkeep.scanning.verdicts import verdict
from tensorkeep.scanning.walking import Exclude, Job, Mapper, walk
from tensorkeep.stores.local import LocalFolder
from tensorkeep.stores.opening import Source, open_blob, path_of

__all__ = ["FileReport", "ScanReport", "judge", "scan"]


def scan(
    target: Source,
    *,
    deep: bool = False,
    explain: bool = False,
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
    mapper: Mapper = map,
    digests: bool = False,
    exclude: Exclude = lambda _path: False,
) -> ScanReport:
    """Say what loading `target` would run, and what about it is odd, without running any of it.

    `target`: what `open` takes; a directory is walked and every file in it judged alone, but for
    a folder that is one checkpoint (torch.distributed.checkpoint's): that is judged as one. By
    default all bytes are read that a loader could execute; `deep` also reads the tensors' bytes,
    checks their checksums and looks for pickles in them. `explain` writes every pickle of a file as
    a program in words into its report's `programs`. A file that cannot be read gets the
    verdict "unknown", it raises nothing. `mapper` spreads the files of a directory: `fleet.pool`
    has one that uses several processes. `digests` asks for the SHA-256 of every file with
    findings, `exclude` leaves files of a directory out. Raises `StoreError` if the target itself is
    not there, and `NotACheckpoint` for a directory with nothing to scan.
    """
    job = Job(deep, limits or Limits(), explain, digests)
    report = ScanReport(depth="deep" if deep else "default")
    path = path_of(target)
    if path is not None and path.is_dir():
        walk(path, report, job, reporter, mapper, exclude)
    elif path is not None and path.name.endswith(".index.json"):
        report.files.append(_scan_index(path, job))
    else:
        with open_blob(target) as blob:
            report.files.append(scan_blob(blob, deep, job.limits, explain, digests))
    return report


def _scan_index(path: Path, job: Job) -> FileReport:
    from tensorkeep.checkpoints.opening import open_checkpoint  # a file is scanned unopened

    try:
        with open_checkpoint(path, limits=job.limits) as ckpt:
            before = ckpt.bytes_read
            findings = examine(ckpt.contents, job.deep, job.limits, os.fspath(path))
            audited = ckpt.bytes_read - before if job.deep else 0
            rest = not_read(ckpt.contents, ckpt.size, ckpt.bytes_read, audited)
            told = programs_of(ckpt.contents, findings) if job.explain else None
            word = verdict(findings)
            return FileReport(os.fspath(path), word, ckpt.format, findings, rest, told)
    except ReadError as error:
        report = failure(os.fspath(path), error)
        # One broken part must not hide what loading the others, or its own beginning, would run.
        for part in _named_in(path, job.limits):
            with suppress(StoreError), open_blob(part) as blob:
                report.findings += scan_blob(blob, job.deep, job.limits).findings
        report.verdict = verdict(report.findings)
        return report


def _named_in(path: Path, limits: Limits) -> Iterator[Path]:
    """The files beside an index that its text names anywhere, however damaged it is."""
    with open_blob(path) as blob:
        text = blob.read(0, min(blob.size, limits.max_json_bytes))
    for name in LocalFolder(path.parent).names():
        if name != path.name and os.fsencode(name) in text:
            yield path.parent / name
