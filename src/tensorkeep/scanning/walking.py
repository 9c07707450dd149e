"""Every file below a directory, each judged alone; what is no model is skipped and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tensorkeep import formats
from tensorkeep.errors import NotACheckpoint, ReadError, StoreError
from tensorkeep.facts import Limits
from tensorkeep.formats import foreign
from tensorkeep.progress import Reporter
from tensorkeep.scanning.examining import scan_blob
from tensorkeep.scanning.reports import FileReport, ScanReport, failure
from tensorkeep.scanning.rules import judge_anomalies, judge_error
from tensorkeep.scanning.verdicts import verdict
from tensorkeep.stores._errors import translated
from tensorkeep.stores.opening import open_blob

_MODEL_SUFFIXES = (
    ".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl", ".pickle", ".joblib", ".pt2",
    ".gguf", ".h5", ".hdf5", ".keras", ".onnx", ".npy", ".npz", ".nemo", ".mar", ".dill",
    ".distcp",
)  # fmt: skip


# How the work is spread: called with a function and what to call it with, it yields the results in
# order. `fleet.pool` has one that uses several processes.
Mapper = Callable[
    [Callable[[Path], FileReport | None], Iterable[Path]], Iterable[FileReport | None]
]

Exclude = Callable[[Path], bool]


@dataclass(frozen=True, slots=True)
class Job:
    """How each file is scanned; it goes to other processes."""

    deep: bool
    limits: Limits
    explain: bool = False
    digests: bool = False

    def __call__(self, path: Path) -> FileReport | None:
        """The report on one file, or on a folder that is one checkpoint; None if it is no model."""
        if path.is_dir():
            from tensorkeep.scanning.folders import scan_folder  # what one file never needs

            return scan_folder(path, self.deep, self.limits, explain=self.explain)
        return scan_if_model(path, self)


def walk(
    folder: Path,
    report: ScanReport,
    job: Job,
    reporter: Reporter,
    mapper: Mapper = map,
    exclude: Exclude = lambda _path: False,
) -> None:
    """Add everything below `folder` to `report`. Raises `NotACheckpoint` if there is nothing."""
    files = []
    for path in _files(folder, report):
        if exclude(path):
            report.excluded += 1
        else:
            files.append((path, _size(path)))
    reporter.start("scanning", sum(size for _, size in files))
    results = mapper(job, [path for path, _ in files])
    try:
        for at, ((_, size), scanned) in enumerate(zip(files, results, strict=True), 1):
            if scanned is None:
                report.skipped += 1
            else:
                report.files.append(scanned)
            reporter.count(at, len(files), "files")
            reporter.advance(size)
    finally:
        # A pool's processes end now, and not when the traceback is forgotten.
        if isinstance(results, Generator):
            results.close()
        reporter.finish()
    if not report.files:
        raise NotACheckpoint(
            os.fspath(folder),
            expected="a directory with model files in it",
            got=f"{report.skipped} other files" if report.skipped else "an empty one",
        )


def _files(folder: Path, report: ScanReport) -> Iterator[Path]:
    """Every file below `folder`, and in place of the files of one checkpoint the folder they make.

    One folder that cannot be listed makes the verdict unknown.
    """
    from tensorkeep.scanning.folders import own_files

    def closed(error: OSError) -> None:
        told = translated(error, error.filename)
        if Path(error.filename) == folder:
            raise told
        report.files.append(failure(error.filename, told))

    for root, folders, names in os.walk(folder, onerror=closed):
        folders.sort()
        # Not followed: a link may lead anywhere, in a circle too.
        report.skipped += sum(Path(root, name).is_symlink() for name in folders)
        own = set(own_files(Path(root), names))
        if own:
            yield Path(root)
        yield from (Path(root, name) for name in sorted(names) if name not in own)


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(_size(below) for below in path.iterdir() if below.is_file())
        return path.stat().st_size
    except OSError:
        return 0


# What only an index and its parts together can be wrong about.
_INDEX_KINDS = ("tensor-not-in-index", "tensor-in-two-parts")


def _index_alone(path: Path, limits: Limits) -> FileReport:
    """Whether an index fits its parts, which the walk judges each for itself."""
    from tensorkeep.checkpoints.opening import open_checkpoint

    try:
        with open_checkpoint(path, limits=limits) as ckpt:
            odd = [a for a in ckpt.contents.anomalies if a.kind in _INDEX_KINDS]
            findings, name = judge_anomalies(odd, path.name), ckpt.format
    except (ReadError, StoreError) as error:
        findings, name = [judge_error(error, path.name)], "unknown"
    return FileReport(os.fspath(path), verdict(findings), name, findings, 0)


def scan_if_model(path: Path, job: Job) -> FileReport | None:
    """The report on a file that may be a model; None if it is none."""
    if path.name.endswith(".index.json"):
        return _index_alone(path, job.limits)
    suffix = path.suffix.lower() in _MODEL_SUFFIXES
    try:
        with open_blob(path) as blob:
            head = blob.read(0, min(formats.HEAD, blob.size))
            if suffix or formats.identify(blob) or foreign.model_kind(head):
                report = scan_blob(blob, job.deep, job.limits, job.explain, job.digests)
                # An archive that was read to its end, and nothing of a model is in it.
                no_model = [found.rule for found in report.findings] == ["read/not-a-checkpoint"]
                return None if no_model and not suffix else report
            return None
    except (StoreError, ReadError) as error:
        # What cannot be opened may be a model: it is counted, and never passes for safe.
        if not suffix and not path.is_file():
            return None
        return failure(os.fspath(path), error)
