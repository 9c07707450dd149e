"""What `guard` raises in a program that expects `torch.load` to raise."""

from __future__ import annotations

from pickle import UnpicklingError

from tensorkeep.errors import NotSafe, ReadError


class Refused(NotSafe, UnpicklingError):
    """A file that may not be loaded here.

    It is what `torch.load(weights_only=True)` raises, too: whoever expects a refusal finds one.
    """


class Unloadable(ReadError, RuntimeError):
    """A file that cannot be read: a RuntimeError, as torch's own reader raises."""
