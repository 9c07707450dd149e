"""The verdict on one blob or one opened checkpoint, with everything that lies inside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorkeep import formats
from tensorkeep.errors import TensorkeepError
from tensorkeep.facts import Anomaly, Finding, Limits, Verdict
from tensorkeep.formats.contents import Contents
from tensorkeep.scanning._inner import judge_unopened
from tensorkeep.scanning.code import judge_code
from tensorkeep.scanning.dialects import Dialect
from tensorkeep.scanning.explaining import Explained, programs_of
from tensorkeep.scanning.reports import FileReport
from tensorkeep.scanning.rules import judge_anomalies, judge_error, judge_program
from tensorkeep.scanning.steps import STEPS
from tensorkeep.scanning.verdicts import verdict
from tensorkeep.stores import Blob

if TYPE_CHECKING:
    from tensorkeep.checkpoints.checkpoint import Checkpoint

_CHUNK = 1 << 22


def judge(ckpt: Checkpoint, *, audit: bool = False) -> tuple[Verdict, list[Finding]]:
    """The verdict on an opened checkpoint, from all the programs that loading it would run.

    With `audit` the rest of its container is looked at too, as `scan` does.
    """
    if audit or ckpt.contents.pending:
        findings = examine(ckpt.contents, False, Limits(), ckpt.path)
    else:
        findings = judge_contents(ckpt.contents)
    return verdict(findings), findings


def judge_contents(contents: Contents) -> list[Finding]:
    """Everything that the rules say about `contents`, what is nested in it included."""
    findings = _own(contents, ())
    for where, inside in contents.nested:
        findings += [_inside(where, found) for found in judge_contents(inside)]
    return findings


def _own(contents: Contents, more: Iterable[Anomaly]) -> list[Finding]:
    """What is said about `contents` itself; `more` are anomalies that its audit has met."""
    findings = []
    dialect = Dialect(contents.dialect, contents.own)
    for where, program in contents.programs:
        findings += judge_program(program, where, dialect=dialect)
    findings += judge_code(contents.code())
    findings += judge_anomalies(list(dict.fromkeys([*contents.anomalies, *more])), "")
    own = {id(program.error) for _, program in contents.programs}
    own |= {id(error) for _, error in contents.unreadable}
    if contents.error is not None and id(contents.error) not in own:
        findings.append(judge_error(contents.error, contents.format))
    findings += [judge_error(error, where) for where, error in contents.unreadable]
    return findings + judge_unopened(contents)


def _inside(where: str, found: Finding) -> Finding:
    """A finding in a file that lies in another one: the place is the way through both."""
    member = f"{where}: {found.member}" if found.member else where
    return replace(found, member=member, where=f"{where}: {found.where}")


def examine(contents: Contents, deep: bool, limits: Limits, subject: str) -> list[Finding]:
    """As `judge_contents`, after its audit and a look at every tensor; nested files too."""
    errors: list[Finding] = []
    found: list[Anomaly] = []
    for step in STEPS:
        try:
            found.extend(step(contents, deep, limits, subject))
        except TensorkeepError as error:
            errors.append(judge_error(error, subject))
    findings = [*_own(contents, found), *errors]
    for where, inside in contents.nested:
        findings += [_inside(where, one) for one in examine(inside, deep, limits, where)]
    return findings


def scan_blob(
    blob: Blob, deep: bool, limits: Limits, explain: bool = False, digests: bool = False
) -> FileReport:
    """The verdict on the file in `blob`; it raises nothing of ours."""
    findings: list[Finding] = []
    programs: list[Explained] | None = [] if explain else None
    name, rest = "unknown", max(blob.size - blob.bytes_read, 0)
    try:
        contents = formats.examine(blob, limits)
        name, before = contents.format, blob.bytes_read
        findings += examine(contents, deep, limits, blob.name)
        audited = blob.bytes_read - before if deep else 0
        rest = not_read(contents, blob.size, blob.bytes_read, audited)
        programs = programs_of(contents, findings) if explain else None
    except TensorkeepError as error:
        findings.append(judge_error(error, blob.name))
    digest = _digest(blob, findings) if digests and findings else ""
    return FileReport(blob.name, verdict(findings), name, findings, rest, programs, digest)


def _digest(blob: Blob, findings: list[Finding]) -> str:
    """Of all bytes of the file that was judged, through the same open descriptor."""
    import hashlib  # it loads OpenSSL: milliseconds that most scans need not wait for

    made = hashlib.sha256()
    try:
        for start in range(0, blob.size, _CHUNK):
            made.update(blob.read(start, min(_CHUNK, blob.size - start)))
        blob.check_unchanged()
    except TensorkeepError as error:
        findings.append(judge_error(error, blob.name))
        return ""
    return f"sha256:{made.hexdigest()}"


def not_read(contents: Contents, size: int, read: int, audited: int) -> int:
    """Bytes that the verdict does not rest on: those of the storages, unless they were audited.

    Size less bytes read alone would say too little: the end of a file is read for its directory,
    whatever lies there, and some of it twice.
    """
    stored = min(sum(storage.nbytes for storage in contents.storages.values()), size)
    return max(stored - audited, size - read, 0)
