"""A folder that is one checkpoint: one verdict, over all the files that loading it would read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tensorkeep.checkpoints.directory import examine_whole, is_whole
from tensorkeep.checkpoints.kept import KeptFolder
from tensorkeep.errors import TensorkeepError
from tensorkeep.facts import Finding, Limits
from tensorkeep.formats.contents import Contents
from tensorkeep.formats.dcp import METADATA
from tensorkeep.scanning.examining import examine, not_read, scan_blob
from tensorkeep.scanning.explaining import Explained, programs_of
from tensorkeep.scanning.reports import FileReport
from tensorkeep.scanning.rules import judge_error
from tensorkeep.scanning.verdicts import verdict


def own_files(path: Path, names: Sequence[str]) -> list[str]:
    """Those of `names`, the files in `path`, that make one checkpoint together; often none."""
    try:
        folder = KeptFolder(path)
        try:
            return is_whole(folder, list(names))
        finally:
            folder.close()
    except TensorkeepError:
        return []  # each file says for itself why it cannot be read


def scan_folder(path: Path, deep: bool, limits: Limits, explain: bool = False) -> FileReport:
    """The verdict on the checkpoint that `path` is; it raises nothing of ours."""
    name, rest = "unknown", 0
    findings: list[Finding] = []
    programs: list[Explained] | None = [] if explain else None
    try:
        folder = KeptFolder(path)
        try:
            contents = examine_whole(folder, limits)
            name = contents.format
            before = sum(blob.bytes_read for blob in folder.blobs)
            findings += examine(contents, deep, limits, os.fspath(path))
            programs = programs_of(contents, findings) if explain else None
            for part, report in _left_over(folder, contents, deep, limits, explain):
                findings += [_within(part, found) for found in report.findings]
                for told in report.programs or ():
                    inner = f"{part}: {told.where}" if told.where else part
                    programs = [*(programs or ()), replace(told, where=inner)]
            read = sum(blob.bytes_read for blob in folder.blobs)
            size = sum(blob.size for blob in folder.blobs)
            rest = not_read(contents, size, read, read - before if deep else 0)
        finally:
            folder.close()
    except TensorkeepError as error:
        findings.append(judge_error(error, os.fspath(path)))
    return FileReport(os.fspath(path), verdict(findings), name, findings, rest, programs)


def _left_over(
    folder: KeptFolder, contents: Contents, deep: bool, limits: Limits, explain: bool
) -> Iterator[tuple[str, FileReport]]:
    """Files that belong to the folder by their name, and that nothing in it names."""
    names = folder.names()
    for name in is_whole(folder, names):
        if name not in (METADATA, *contents.parts):
            yield name, scan_blob(folder.open(name), deep, limits, explain)


def _within(name: str, found: Finding) -> Finding:
    member = f"{name}: {found.member}" if found.member else name
    return replace(found, member=member, where=f"{name}: {found.where}")
