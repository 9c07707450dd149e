"""Values that are no tensors: whether two are the same, and how they are written in JSON."""

from __future__ import annotations

import math

from tensorkeep.formats.contents import Inert
from tensorkeep.pickles import describe

_ATOMS = (bool, int, float, complex, str, bytes, type(None))
# What is longer in words is compared by its beginning; `whole` says so.
_LONGEST = 20_000
_SHOWN = 200
_LONGEST_INTEGER = 1024  # bits; Python writes no longer ones in decimal


def same(a: object, b: object) -> bool:
    """Whether two values are equal: of one type, NaN equal to NaN, unknown objects by their text.

    True and 1 differ, and so do 1 and 1.0: a program that reads them may tell them apart.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, _ATOMS):
        return a == b
    return _text(a) == _text(b)


def whole(value: object) -> bool:
    """Whether `same` sees all of it."""
    return isinstance(value, _ATOMS) or len(_text(value)) < _LONGEST


def _text(value: object) -> str:
    if isinstance(value, Inert):
        value = value.why if value.node is None else value.node
    return value if isinstance(value, str) else describe(value, _LONGEST)


def shown(value: object) -> object:
    """`value` as JSON holds it, in short: no NaN, no bytes, unknown objects in words."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        return describe(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "..."
    return _text(value)[:_SHOWN] if isinstance(value, Inert) else describe(value, _SHOWN)
