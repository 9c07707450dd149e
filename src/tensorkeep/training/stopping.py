"""SIGTERM while a run goes on: the first is remembered, the run ends at a step that it knows.

Nothing is saved in the handler: it may come in the middle of an optimizer's step.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from types import FrameType

from tensorkeep.errors import BadArgument, TensorkeepWarning


class Stopping:
    """Whether SIGTERM came, from `install` to `remove`."""

    def __init__(self, on_sigterm: str | None) -> None:
        self.asked = False
        # Whether the caller has been told, by an exception.
        self.told = False
        # Batches since the step was known last: the state is that of the step if there is none.
        self.batches = 0
        self._wanted = when("on_sigterm", on_sigterm)
        self._before: signal._HANDLER = None
        self._owner = os.getpid()
        self._installed = False

    def gave(self) -> None:
        """A batch."""
        self.batches += 1

    def install(self) -> None:
        """Take SIGTERM, if that was wanted; in the main thread, as no other gets signals."""
        if not self._wanted:
            return
        if threading.current_thread() is not threading.main_thread():
            _warn("signals come to the main thread alone, and the run is in another")
        elif signal.getsignal(signal.SIGTERM) is None:
            _warn("a library that is not Python's has taken the signal")
        else:
            self._before = signal.signal(signal.SIGTERM, self._handle)
            self._installed = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.remove()
        if os.getpid() == self._owner:
            self.asked = True
        else:  # a forked child: the run is not its own, the signal is
            os.kill(os.getpid(), number)

    def remove(self) -> None:
        """What was done before is done again, unless somebody else has taken the signal since."""
        # Bound methods are made anew each time that they are asked for.
        if self._installed and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._before)
        self._installed = False


def when(option: str, value: str | None) -> bool:
    """Whether to save then. Raises `BadArgument`."""
    if value not in ("save", None):
        raise BadArgument(f"Run({option}=...)", expected='"save" or None', got=repr(value))
    return value is not None


def _warn(why: str) -> None:
    warnings.warn(TensorkeepWarning(f"SIGTERM will not save the run: {why}"), stacklevel=4)


def due(step: int, every: object) -> bool:
    """Whether `step` is one to save at. Raises `BadArgument`."""
    if every is None:
        return True
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise BadArgument("save(every=...)", expected="a whole number from 1 on", got=repr(every))
    return step % every == 0
