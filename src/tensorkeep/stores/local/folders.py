"""A folder being written: a sharded checkpoint appears with all of its parts, or not at all.

The parts are written into a hidden `.NAME.XXXXXXXX.tmp` beside the target, which is renamed at
the end. SIGKILL leaves that folder behind, never a mixture of old and new parts.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorkeep.errors import AlreadyExists, BadArgument, StoreError
from tensorkeep.stores._errors import file_name, mapped
from tensorkeep.stores.local import kernel
from tensorkeep.stores.local.placing import hidden_beside, require_parent, sync_folder
from tensorkeep.stores.local.reading import plain_name
from tensorkeep.stores.local.writing import LocalSink

Replaceable = Callable[[Iterable[str]], bool]


def _nothing(names: Iterable[str]) -> bool:
    return False


class LocalFolderSink:
    """A folder being written to `path`, which must be absent or empty.

    With `overwrite` a folder with files in it is replaced as a whole, if `replaceable` says of
    the names in it that they belong to the checkpoint being replaced; one stranger, or a
    folder inside, and it is refused. A symbolic link is followed. The old folder is deleted only
    after the new one stands; what could not be deleted is named by `left_behind`.

    Raises `AlreadyExists` (here, or at commit), `NotFound`, `AccessDenied`, `NoSpace`,
    `BadArgument`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        replaceable: Replaceable = _nothing,
    ) -> None:
        self.name = file_name(path)
        self.left_behind: Path | None = None
        self.committed = False
        self._replaceable = replaceable if overwrite else _nothing
        self._sinks: list[LocalSink] = []
        self._old_names: list[str] = []
        self._temporary: Path | None = None
        with mapped(self.name):
            self.path = _resolved(Path.cwd() / self.name)
            require_parent(self.path)
            old = self._refuse_strangers()
            temporary = hidden_beside(self.path)
            temporary.mkdir()
            self._temporary = temporary
            if old is not None:
                with contextlib.suppress(OSError):  # FAT has no permissions to keep
                    temporary.chmod(stat.S_IMODE(old.st_mode))

    def create(self, name: str, size: int | None = None) -> LocalSink:
        """A new file in it, `size` bytes long where known. Errors name it by its final path.

        Raises `BadArgument` if `name` is not a plain file name, and what `LocalSink` raises.
        """
        if not plain_name(name):
            raise BadArgument(self.name, expected="the plain name of a file", got=f"'{name}'")
        path = self._open_folder() / name
        sink = LocalSink(path, size=size, name=os.fspath(Path(self.name) / name))
        self._sinks.append(sink)
        return sink

    def commit(self) -> None:
        """Commit every file, then let the folder appear under its name. Twice is once.

        Raises what the files' commits raise, and `AlreadyExists`; then nothing is left behind.
        """
        if self.committed:
            return
        temporary = self._open_folder()
        old = temporary
        try:
            for sink in self._sinks:
                sink.commit()
            with mapped(self.name):
                self._refuse_strangers()
                old = self._put(temporary)
        except BaseException:
            self.abort()
            raise
        self.committed, self._temporary = True, None
        with mapped(self.name):
            sync_folder(self.path.parent)
        if old.exists():
            self._delete(old)

    def abort(self) -> None:
        """Leave nothing behind. After a commit, or again, it does nothing."""
        temporary, self._temporary = self._temporary, None
        if temporary is None:
            return
        for sink in self._sinks:
            sink.abort()
        with contextlib.suppress(OSError):  # it must not hide the error that led here
            for entry in temporary.iterdir():
                entry.unlink()
            temporary.rmdir()

    def _open_folder(self) -> Path:
        if self._temporary is None:
            raise StoreError(self.name, expected="an open folder", got="one that was closed")
        return self._temporary

    def _refuse_strangers(self) -> os.stat_result | None:
        """Raise unless the target is absent or replaceable; return its status if it exists."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            raise AlreadyExists(
                self.name, expected="a new folder", got="a file", remedy="Choose another name."
            )
        with os.scandir(self.path) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        self._old_names = [entry.name for entry in entries]
        folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        if folders or (entries and not self._replaceable(self._old_names)):
            raise self._occupied(folders)
        return status

    def _occupied(self, folders: list[str]) -> AlreadyExists:
        strangers = [name for name in self._old_names if not self._replaceable([name])]
        stranger = [*folders, *strangers, *self._old_names][0]
        overwriting = self._replaceable is not _nothing
        return AlreadyExists(
            self.name,
            expected="a folder with nothing but the checkpoint to replace"
            if overwriting
            else "a new or an empty folder",
            got=f"one with '{stranger}' in it",
            remedy="Choose another name, or move that away."
            if overwriting
            else "Choose another name, or ask to overwrite it.",
        )

    def _put(self, temporary: Path) -> Path:
        """Rename the new folder to its name. Returns where the old one lies then, if it does."""
        if not self.path.exists() or not any(self.path.iterdir()):
            temporary.rename(self.path)  # refuses by itself if somebody has filled it since
            return temporary
        if kernel.rename(temporary, self.path, kernel.EXCHANGE):
            return temporary
        aside = hidden_beside(self.path)
        self.path.rename(aside)
        try:
            temporary.rename(self.path)
        except BaseException:
            aside.rename(self.path)
            raise
        return aside

    def _delete(self, old: Path) -> None:
        try:
            for name in self._old_names:  # and nothing that came since they were checked
                (old / name).unlink()
            old.rmdir()
        except OSError:
            self.left_behind = old

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()


def _resolved(path: Path) -> Path:
    with contextlib.suppress(FileNotFoundError):
        path.stat()  # a circle of links raises here, in a way that is mapped
    return path.resolve()
