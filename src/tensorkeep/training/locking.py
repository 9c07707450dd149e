"""One run, one writer: a lock that the kernel lets go of when its process dies, however it dies.

Record locks (fcntl) and not flock: children that a run forks (a loader's workers) do not inherit
them, so none of them keeps the lock of a parent that was killed. Within a process they do not
exclude each other; a table does.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

from tensorkeep.errors import AlreadyExists, StoreError
from tensorkeep.stores._descriptor import kind_of
from tensorkeep.stores._errors import mapped

NAME = ".lock"
_TAKEN: set[tuple[int, int]] = set()
_GUARD = threading.Lock()


class Lock:
    """Raises `AlreadyExists` if another run, of this process or another, has the folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._owner = os.getpid()
        with mapped(self.path):
            self._require_plain()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptor = os.open(self.path, flags, 0o666)
        status = os.fstat(self._descriptor)
        self._key = status.st_dev, status.st_ino
        with _GUARD:
            if self._key in _TAKEN:
                # Closing it would let go of the lock that the other one has.
                raise self._refusal(f"process {os.getpid()}, this one")
            if not self._locked():
                other = self._holder()
                os.close(self._descriptor)
                raise self._refusal(other)
            _TAKEN.add(self._key)
        with contextlib.suppress(OSError):  # it is for people only
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.uname().nodename} {os.getpid()}\n".encode(), 0)

    def _require_plain(self) -> None:
        # Through a link we would write into a file that is none of ours.
        with contextlib.suppress(FileNotFoundError):
            mode = self.path.lstat().st_mode
            if not stat.S_ISREG(mode):
                raise StoreError(
                    self.path,
                    expected="a file",
                    got="a link" if stat.S_ISLNK(mode) else kind_of(mode),
                    remedy="Remove it: tensorkeep makes a new one.",
                )

    def _locked(self) -> bool:
        import fcntl

        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise StoreError(
                self.path,
                expected="a file system with locks",
                got=error.strerror,
                remedy="Keep the run on another file system.",
            ) from error
        return True

    def _holder(self) -> str:
        host, _, number = (
            os.pread(self._descriptor, 200, 0).decode("utf-8", "replace").partition(" ")
        )
        return f"process {number.strip()} on {host}" if number.strip() else "another process"

    def _refusal(self, other: str) -> AlreadyExists:
        return AlreadyExists(
            self.path.parent,
            expected="a run that nobody else writes to",
            got=f"one that {other} has open",
            remedy="End that run, or give this one another folder.",
        )

    def release(self) -> None:
        """Let go; a child that was forked has nothing to let go of."""
        if self._descriptor >= 0 and os.getpid() == self._owner:
            with _GUARD:
                _TAKEN.discard(self._key)
                os.close(self._descriptor)
        self._descriptor = -1
