"""Long work tells a reporter how far it is. This one does nothing; the CLI passes one."""

from __future__ import annotations


class Reporter:
    """Called from the thread that runs the verb; `advance` also from others."""

    def start(self, what: str, total: int) -> None:
        """`what` is about to begin; `total` in bytes."""

    def advance(self, amount: int) -> None:
        """`amount` more bytes are done."""

    def count(self, done: int, total: int, what: str) -> None:
        """So many of the things that the work consists of are done ("files")."""

    def finish(self) -> None:
        """The work that was started is over, done or not."""


SILENT = Reporter()
