"""The open files of a checkpoint that is a folder."""

from __future__ import annotations

from pathlib import Path

from tensorkeep.stores import Blob
from tensorkeep.stores.local import BriefBlob, LocalBlob, LocalFolder

# A process may have a thousand files open, and is not asked here how many it has already.
_OPEN = 256


class KeptFolder:
    """A folder whose files are opened once each and stay open until it is closed.

    `plain` is the same folder for files that are read and closed at once, as an index is.
    """

    def __init__(self, path: Path) -> None:
        self.plain = LocalFolder(path)
        self.name, self.path = self.plain.name, self.plain.path
        self._opened: dict[str, LocalBlob | BriefBlob] = {}

    def names(self) -> list[str]:
        """The names of the files in it, sorted; folders in it are left out."""
        return self.plain.names()

    @property
    def blobs(self) -> list[Blob]:
        """The files that were opened, in that order."""
        return list(self._opened.values())

    def open(self, name: str) -> Blob:
        """The file `name`. Raises `Damaged` if that is not the plain name of a file in here."""
        if name not in self._opened:
            blob: LocalBlob | BriefBlob = self.plain.open(name)
            if len(self._opened) >= _OPEN:
                blob.close()
                blob = BriefBlob(self.path / name)
            self._opened[name] = blob
        return self._opened[name]

    def close(self) -> None:
        """Close every file that was opened."""
        for blob in self._opened.values():
            blob.close()
