"""Files and folders of this machine, read in place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tensorkeep.errors import Damaged, StoreError
from tensorkeep.stores._descriptor import DescriptorBlob, require_file
from tensorkeep.stores._errors import file_name, mapped


class LocalBlob(DescriptorBlob):
    """A file by its path; symbolic links are followed.

    Raises `NotFound`, `AccessDenied`, `StoreError` (a folder, pipe or device) and `BadArgument`
    (what no path can be).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = file_name(path)
        self.path = Path(name)
        with mapped(name):
            # Opening a device can act on it, and opening a pipe waits for its writer for ever.
            require_file(self.path.stat(), name)
            flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(name, flags)
        super().__init__(descriptor, name)
        # Archives on tape answer a non-blocking read of a real file with EAGAIN.
        os.set_blocking(descriptor, True)


class LocalFolder:
    """A folder whose files are read, as the parts of a sharded checkpoint are.

    Symbolic links in it are followed: hub caches are made of links that lead out of the folder.
    What a *name* may not do is lead out of it, since names come out of index files.
    Raises `NotFound`, `AccessDenied`, and `StoreError` if `path` is no folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = file_name(path)
        self.path = Path(self.name)
        with mapped(self.name):
            if not stat.S_ISDIR(self.path.stat().st_mode):
                raise StoreError(self.name, expected="a folder", got="a file")

    def names(self) -> list[str]:
        """The names of all entries that are not folders, sorted; broken links are among them."""
        with mapped(self.name), os.scandir(self.path) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())

    def open(self, name: str) -> LocalBlob:
        """The file `name`. Raises `Damaged` if that is not the plain name of a file in here."""
        if not plain_name(name):
            raise Damaged(
                self.name,
                expected="the plain name of a file in this folder",
                got=f"'{name}'",
                remedy="Do not use this checkpoint: it points outside its own folder.",
            )
        return LocalBlob(self.path / name)


def plain_name(name: str) -> bool:
    """Whether `name` stays in its folder: no separator (of Windows neither), no dots, no NUL."""
    return name not in {"", ".", ".."} and not set(name) & {"/", "\\", "\0"}


def same_file(a: str | os.PathLike[str] | int, b: str | os.PathLike[str] | int) -> bool:
    """Whether two paths (or open descriptors) are one file, by whatever links they lead there.

    False if one of them does not exist or cannot be looked at.
    """
    try:
        first, second = os.stat(a), os.stat(b)  # noqa: PTH116 - descriptors too
    except (OSError, ValueError):
        return False
    return os.path.samestat(first, second)
