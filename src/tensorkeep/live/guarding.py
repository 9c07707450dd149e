"""`guard`: the loads of a program that nobody changed, taken over by our reader.

What torch calls to load is one function object, whoever imported it under whatever name and
whenever; so its *code* is exchanged, and given back when the last guard ends. torch itself is not
imported before the program imports it. What is done instead lives in `guarded`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Token
from types import ModuleType, TracebackType
from typing import Self

from tensorkeep.live import held, hooks
from tensorkeep.live.held import Held

_switch = threading.RLock()


class guard(Held):  # noqa: N801  # a verb: `with tk.guard(): ...`
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
        super().__init__(require, trust, log)
        self._tokens: list[Token[Held | None]] = []

    def __enter__(self) -> Self:
        self.start()
        self._tokens.append(held.OWN.set(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # Left where another context counts (a fixture, an asynchronous generator), none of it
            # is this guard's to give back.
            with suppress(ValueError):
                held.OWN.reset(self._tokens.pop())
        finally:
            self.stop()

    def start(self) -> None:
        """Guard this process from here on; `stop` ends it. A `with` block does both.

        Raises `Unsupported` for a version of torch whose functions have other arguments.
        """
        with _switch:
            held.add(self)
            try:
                hooks.install(_instead)
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End what `start` began; without that, nothing."""
        with _switch:
            if held.drop(self):
                hooks.remove()


def _instead() -> ModuleType:
    """What is called instead of torch's functions; it imports torch, which has been by then."""
    from tensorkeep.live import guarded

    return guarded


def _fresh_lock() -> None:
    """A thread that held the lock while this process was forked is not in the child."""
    global _switch  # noqa: PLW0603
    _switch = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)
