"""The guards that are entered, and which of them counts: what it requires, trusts and writes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from tensorkeep.errors import BadArgument
from tensorkeep.live.guard_log import GuardLog

if TYPE_CHECKING:
    from tensorkeep.live.trusting import Trust


class Held:
    """What one guard says of loads. Raises `BadArgument` for what it cannot be told."""

    def __init__(
        self,
        require: str | None = None,
        trust: Iterable[str | type] = (),
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        if require not in ("safe", None):
            raise BadArgument("require", expected="'safe' or None", got=repr(require))
        self.require = require
        self._trust = trusted(trust) if trust else None
        self.log = GuardLog(log)

    @property
    def trust(self) -> Trust:
        """The names that are trusted."""
        if self._trust is None:
            self._trust = trusted(())
        return self._trust


def trusted(names: Iterable[str | type]) -> Trust:
    """The names as `Trust`. Raises `BadArgument`."""
    from tensorkeep.live.trusting import Trust  # the allowlist: a program without torch needs none

    return Trust(names)


_lock = threading.RLock()
_active: list[Held] = []
OWN: ContextVar[Held | None] = ContextVar("tensorkeep.guard", default=None)


def current() -> Held | None:
    """The guard that counts here: the innermost of this thread, else the latest; or None."""
    own = OWN.get()
    with _lock:
        if own is not None and own in _active:
            return own
        return _active[-1] if _active else None


def add(held: Held) -> None:
    """Begin."""
    with _lock:
        _active.append(held)


def drop(held: Held) -> bool:
    """End what was begun last of `held`, if anything was; whether none is left."""
    with _lock:
        if held in _active:
            del _active[len(_active) - 1 - _active[::-1].index(held)]
        return not _active


def _fresh_lock() -> None:
    """A thread that held the lock while this process was forked is not in the child."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)
