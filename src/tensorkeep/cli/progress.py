"""A bar on stderr for long work; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from tensorkeep.cli.output import coloured
from tensorkeep.errors import escape
from tensorkeep.progress import SILENT, Reporter

# Work that is over sooner than this needs no bar, and rich need not be imported for it.
_PATIENCE = 0.4


def reporter() -> Reporter:
    """The one that fits this terminal."""
    return Bar() if coloured(sys.stderr) else SILENT


class Bar(Reporter):
    """Rate and time left, from the moment on that the work proves to be long."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None
        self._began = 0.0
        self._verb = self._what = ""
        self._total = 0
        self._done = 0
        self._lock = threading.Lock()

    def start(self, what: str, total: int) -> None:
        """See `Reporter`."""
        self._verb = self._what = escape(what)
        self._total, self._done = total, 0
        self._began = time.monotonic()

    def advance(self, amount: int) -> None:
        """See `Reporter`."""
        with self._lock:
            self._done += amount
            if self._progress is not None:
                self._progress.update(self._task, completed=self._done)
            elif time.monotonic() - self._began > _PATIENCE:
                self._open()

    def count(self, done: int, total: int, what: str) -> None:
        """See `Reporter`."""
        self._what = f"{self._verb} {done:,} of {total:,} {escape(what)}"
        if self._progress is not None:
            self._progress.update(self._task, description=self._what)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._task = self._progress.add_task(self._what, total=self._total, completed=self._done)
        self._progress.start()

    def finish(self) -> None:
        """See `Reporter`."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
