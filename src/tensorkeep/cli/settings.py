"""Which file of settings holds, and what the command makes of it: findings that do not count."""

from __future__ import annotations

import os
from pathlib import Path

from tensorkeep.cli.output import note_lines
from tensorkeep.errors import BadArgument
from tensorkeep.facts import Finding
from tensorkeep.scanning import baseline
from tensorkeep.scanning.reports import FileReport, ScanReport
from tensorkeep.scanning.settings import NAME, Settings, allow, parse
from tensorkeep.stores.local.writing import LocalSink
from tensorkeep.stores.opening import open_blob

_LONGEST = 64 << 20


class Rules:
    """The settings, and the folder that their paths are relative to."""

    def __init__(self, settings: Settings, folder: Path, known: str | None) -> None:
        self.settings = settings
        self._folder = folder
        path = known or _below(folder, settings.baseline)
        self._known = baseline.read(_text(path), path) if path else frozenset()

    @property
    def need_digests(self) -> bool:
        """Whether the files with findings have to be hashed."""
        return self.settings.needs_digests or bool(self._known)

    def excluded(self, path: Path) -> bool:
        """Whether a file of a walked directory is left out."""
        return bool(self.settings.exclude) and self.settings.excluded(self._relative(path))

    def apply(self, report: ScanReport) -> None:
        """Note in `report` which findings do not count."""
        allow(report, self._reason)

    def _reason(self, found: Finding, file: FileReport) -> str | None:
        reason = self.settings.reason(found, self._relative(file.path), file.digest)
        return reason or baseline.reason(self._known, found, file)

    def _relative(self, path: str | Path) -> str:
        """As the patterns name it: below the folder relative to it, elsewhere whole."""
        whole = Path(os.path.abspath(path))  # noqa: PTH100  (resolve would follow links)
        inside = whole.is_relative_to(self._folder)
        return (whole.relative_to(self._folder) if inside else whole).as_posix()


def rules(config: str | None, no_config: bool, known: str | None) -> Rules:
    """The settings of `config`, or of the current folder if it has any and they are wanted."""
    if config and no_config:
        remedy = "Leave out one of them."
        raise BadArgument("--config", expected="no --no-config", got="both", remedy=remedy)
    path = Path(config or NAME)
    if not config and (no_config or not os.path.lexists(path)):
        return Rules(Settings(), Path.cwd(), known)
    folder = Path(os.path.abspath(path.parent))  # noqa: PTH100
    return Rules(parse(_text(str(path)), str(path)), folder, known)


def write_baseline(report: ScanReport, path: str) -> None:
    """Write what was found to `path`, whole or not at all."""
    data = baseline.write(report).encode()
    with LocalSink(path, overwrite=True, size=len(data)) as sink:
        sink.write_at(0, data)
        sink.commit()
    left = baseline.uncovered(report)
    if left:
        note_lines([f"{left:,} findings are not in it: what could not be read always counts"])


def _below(folder: Path, path: str | None) -> str | None:
    return None if path is None else str(folder / path)


def _text(path: str) -> str:
    with open_blob(path) as blob:
        if blob.size > _LONGEST:
            remedy = "Check that this is the file you mean."
            raise BadArgument(path, expected="at most 64 MiB", got=blob.size, remedy=remedy)
        data = blob.read(0, blob.size)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        remedy = "Save it as UTF-8."
        raise BadArgument(path, expected="text in UTF-8", got=error.reason, remedy=remedy) from None
