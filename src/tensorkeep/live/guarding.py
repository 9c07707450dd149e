"""`guard`: the loads of a program that nobody changed, taken over by our reader.

What torch calls to load is one function object, whoever imported it under whatever name and
whenever; so its *code* is exchanged, and given back when the last guard ends. torch itself is not
imported before the program imports it. What is done instead lives in `guarded`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tensorkeep.errors import BadArgument
from tensorkeep.live.guard_log import GuardLog

if TYPE_CHECKING:
    from tensorkeep.live.trusting import Trust

_lock = threading.RLock()
_active: list[guard] = []
_own: ContextVar[guard | None] = ContextVar("tensorkeep.guard", default=None)


class guard:  # noqa: N801  # a verb: `with tk.guard(): ...`
    """While it is entered, `torch.load` reads and runs nothing, in all threads of this process.

    `require="safe"` refuses files that a scan does not call safe; None loads what is data of any
    file, and leaves the rest inert. `trust`: exact names of classes ("pkg.module.Class"), or
    classes, whose objects files may hold; those of torch.nn need no trust. `log`: a file to which
    a line of JSON is added for each load. Guards nest: in a thread the innermost of its own counts,
    otherwise the latest.

    `log` of the object is its `GuardLog`. What is refused raises `Refused`, which is a `NotSafe`
    and pickle's `UnpicklingError`: code that catches `Exception` goes on without the file. Children
    that are forked are guarded; other processes are by the command, `tensorkeep guard`. Raises
    `BadArgument`.
    """

    def __init__(
        self,
        *,
        require: str | None = None,
        trust: Iterable[str | type] = (),
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        if require not in ("safe", None):
            raise BadArgument("require", expected="'safe' or None", got=repr(require))
        self.require = require
        self._trust = trusted(trust) if trust else None
        self.log = GuardLog(log)
        self._tokens: list[Token[guard | None]] = []

    @property
    def trust(self) -> Trust:
        """The names that are trusted."""
        if self._trust is None:
            self._trust = trusted(())
        return self._trust

    def __enter__(self) -> Self:
        self.start()
        self._tokens.append(_own.set(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _own.reset(self._tokens.pop())
        self.stop()

    def start(self) -> None:
        """Guard this process from here on; `stop` ends it. A `with` block does both.

        Raises `Unsupported` for a version of torch whose functions have other arguments.
        """
        from tensorkeep.live import hooks

        with _lock:
            _active.append(self)
            try:
                hooks.install()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End what `start` began."""
        from tensorkeep.live import hooks

        with _lock:
            last = len(_active) - 1 - _active[::-1].index(self)
            del _active[last]
            if not _active:
                hooks.remove()


def trusted(names: Iterable[str | type]) -> Trust:
    """The names as `Trust`. Raises `BadArgument`."""
    from tensorkeep.live.trusting import Trust  # the allowlist: a program without torch needs none

    return Trust(names)


def current() -> guard | None:
    """The guard that counts here, None if there is none any more."""
    own = _own.get()
    with _lock:
        if own is not None and own in _active:
            return own
        return _active[-1] if _active else None


def _fresh_lock() -> None:
    """A thread that held the lock while this process was forked is not in the child."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)
