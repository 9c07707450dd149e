"""What the operating system says, in our words: the one place that knows errno."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from tensorkeep.errors import (
    AccessDenied,
    AlreadyExists,
    BadArgument,
    ChangedWhileRead,
    NoSpace,
    NotFound,
    StoreError,
    TensorkeepError,
)

_KINDS: dict[int, tuple[type[TensorkeepError], str]] = {
    errno.ENOENT: (NotFound, "Check the path."),
    errno.ENOTDIR: (NotFound, "Check the path: a part of it is a file, not a folder."),
    errno.ELOOP: (NotFound, "Check the path: its symbolic links lead in a circle."),
    errno.EACCES: (AccessDenied, "Check the permissions of the file and of its folder."),
    errno.EPERM: (AccessDenied, "Check the permissions of the file and of its folder."),
    errno.EROFS: (AccessDenied, "Choose a destination that is not mounted read-only."),
    errno.EEXIST: (AlreadyExists, "Choose another name, or ask to overwrite it."),
    errno.ENOTEMPTY: (AlreadyExists, "Choose another name, or empty the folder."),
    errno.ENOSPC: (NoSpace, ""),
    errno.EDQUOT: (NoSpace, ""),
    errno.EFBIG: (NoSpace, ""),
    errno.ENAMETOOLONG: (BadArgument, "Choose a shorter name."),
    errno.ESTALE: (ChangedWhileRead, "Open it again."),
    errno.EISDIR: (StoreError, "Name a file, not a folder."),
    errno.EIO: (StoreError, "The device failed to do it: check the disk or the network mount."),
    errno.EMFILE: (StoreError, "Close some files, or raise the limit (ulimit -n)."),
    errno.ENFILE: (StoreError, "Close some files: the whole system has too many open."),
    errno.EBUSY: (StoreError, "Choose another name: this one is in use by the system."),
}


def translated(error: OSError, subject: object, where: str = "") -> TensorkeepError:
    """The error of ours that says what `error` says about `subject`."""
    number = error.errno or 0
    kind, remedy = _KINDS.get(number, (StoreError, ""))
    # A file object written in Python may raise OSError("text") without a number.
    got = os.strerror(number) if number else f"{type(error).__name__}: {error}"
    expected = "an existing file or folder" if kind is NotFound else ""
    return kind(subject, expected=expected, got=got, where=where, remedy=remedy)


class mapped:  # noqa: N801 - reads as a word in a `with`
    """Context that turns every OSError about `subject` into an error of ours.

    A class and not a generator: it stands around each small read, and costs a third.
    """

    __slots__ = ("_subject", "_where")

    def __init__(self, subject: object, where: str = "") -> None:
        self._subject = subject
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise translated(error, self._subject, self._where) from error


def file_name(path: str | os.PathLike[str]) -> str:
    """`path` as text that the operating system can take.

    Raises `BadArgument` if it is empty or holds what no path can (NUL, lone surrogates).
    """
    text = os.fsdecode(path)
    try:
        possible = bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if possible:
        return text
    raise BadArgument(
        f"the path '{text}'",
        expected="the name of a file",
        got="a character that no path can hold" if text else "nothing",
        remedy="Check the path.",
    )
