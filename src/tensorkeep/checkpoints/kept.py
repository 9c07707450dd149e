"""The open files of a checkpoint that is a folder."""

from __future__ import annotations

from pathlib import Path

from tensorkeep.stores import Blob
from tensorkeep.stores.local import LocalBlob, LocalFolder


class KeptFolder(LocalFolder):
    """A folder whose files are opened once each and stay open until it is closed.

    `plain` is the same folder for files that are read and closed at once, as an index is.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.plain = LocalFolder(path)
        self._opened: dict[str, LocalBlob] = {}

    @property
    def blobs(self) -> list[Blob]:
        """The files that were opened, in that order."""
        return list(self._opened.values())

    def open(self, name: str) -> LocalBlob:
        """The file `name`. Raises `Damaged` if that is not the plain name of a file in here."""
        if name not in self._opened:
            self._opened[name] = super().open(name)
        return self._opened[name]

    def close(self) -> None:
        """Close every file that was opened."""
        for blob in self._opened.values():
            blob.close()
