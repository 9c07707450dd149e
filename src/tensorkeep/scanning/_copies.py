"""How many bytes the values of a program copy out of what it spells once.

The memo lets three bytes name a text of a megabyte again, and `bytearray`, numpy and array make a
copy of it each time: a file of a megabyte would fill any memory. A call that moves a tensor to
another dtype copies it too, and a stride of 0 spells a tensor of any size.
"""

from __future__ import annotations

from math import prod

from tensorkeep.facts import Limits, MiB
from tensorkeep.pickles import Call, Global
from tensorkeep.scanning._allow_kinds import Entry

_COPYING = frozenset(
    {"bytes", "bytearray", "array", "np-array", "number", "path", "storage", "str", "generator"}
)
_MOVES = frozenset(
    {
        "_rebuild_device_tensor_from_cpu_tensor",
        "_rebuild_device_tensor_from_numpy",
        "_rebuild_xla_tensor",
    }
)
_TEXTS = frozenset({str, bytes, bytearray})
_FREE = 64 * MiB
_WIDEST = 16  # bytes of an element
_SHAPE = 2  # the place of the shape among the arguments of a tensor


class Copies:
    """Adds up what calls and states copy, for a program of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._left = _FREE + Limits().max_ratio * size

    def afford(self, entry: Entry, args: tuple[object, ...]) -> bool:
        """Whether what an object of `entry` copies out of `args` is within what is left."""
        if entry.makes in _COPYING:
            self._left -= sum(map(_length, args))
            for arg in args:
                if type(arg) is tuple:
                    self._left -= sum(map(_length, arg[:16]))
        elif entry.name in _MOVES:
            self._left -= _elements(args[0]) * _WIDEST
        return self._left >= 0


def _length(value: object) -> int:
    if type(value) in _TEXTS:
        return len(value)  # type: ignore[arg-type]
    if type(value) is not Call or type(value.args) is not tuple or not value.args:
        return 0
    text = value.args[0]  # protocols 0 to 2 have bytes as a call that encodes a text
    return len(text) if type(text) is str else 0


def _elements(value: object) -> int:
    """Elements of a tensor or array that the program spells out; 0 for others."""
    if type(value) is not Call:
        return 0
    shape: object = None
    args = value.args
    if isinstance(value.func, Global) and value.func.name.startswith("_rebuild_tensor"):
        shape = args[_SHAPE] if type(args) is tuple and len(args) > _SHAPE else None
    elif value.effects and type(value.effects[-1].args[0]) is tuple:
        state = value.effects[-1].args[0]
        shape = state[1] if len(state) > 1 else None
    if type(shape) is not tuple or not all(type(part) is int for part in shape):
        return 0
    return max(prod(shape), 0)
