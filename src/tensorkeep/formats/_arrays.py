"""The elements of numpy's arrays, and arrays as places in a blob.

Sources: numpy's array-protocol type strings ("The array interface", `numpy.lib.format`), and
`numpy.dtype.__reduce__`, which pickles such a string and a state (version, byte order, ...).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from tensorkeep.dtypes import BY_NUMPY
from tensorkeep.formats.assembled import Sweep, sweep
from tensorkeep.formats.contents import (
    Inert,
    Lens,
    Storage,
    TensorRecord,
    contiguous_stride,
    sizes,
)
from tensorkeep.pickles import Call, Global
from tensorkeep.stores import Blob

_CODE = re.compile(r"([<>|=]?)([?biufcSUVmMOa])(\d{0,9})(\[[^\]]{1,20}\])?\Z")
_NATURAL = {"?": 1, "O": 8, "m": 8, "M": 8, "b": 1}
# The flags that numpy pickles for a dtype of objects, and for others.
_HAS_OBJECTS = 63
_PLAIN = (0, 8)
# Structured ones need numpy to be taken apart (16), may be filled with zeros (8) or aligned (128).
_STRUCTURED = (16, 24, 144, 152)
_LONGEST = 1 << 62
_DEEPEST = 4  # a struct of many structs of many elements
_TEXTS = "numpy._core._internal._convert_to_stringdtype_kwargs"  # numpy keeps them as objects


@dataclass(frozen=True, slots=True)
class Element:
    """One element: numpy's code without a byte order, its bytes, and whether they are big-endian.

    `objects`: the elements are Python objects, and a pickle stands for their bytes.
    """

    code: str
    itemsize: int
    big: bool
    objects: bool = False


class KnownFirst:
    """A lens over another one: what lies in the file outside the pickle is known by its node."""

    def __init__(self, known: Mapping[int, object], below: Lens) -> None:
        self._known = known
        self._below = below

    def __call__(self, value: object) -> object:
        """The tensor that `value` stands for, or what the lens below says."""
        known = self._known
        return known[id(value)] if id(value) in known else self._below(value)

    def sweep(self) -> Sweep:
        """See `Sweeping`: what is known was in order, or it would not have been read."""
        return sweep(self._below)


def element_of(text: str) -> Element | None:
    """The element that a type string such as "<f4" means, or None."""
    match = _CODE.match(text)
    if match is None:
        return None
    order, kind, digits, _ = match.groups()
    if kind == "O":
        return Element("O", 8, False, True)
    size = int(digits or _NATURAL.get(kind, 0)) * (4 if kind == "U" else 1)
    if kind == "?":
        kind = "b"
    return Element(f"{kind}{size}", size, order == ">" and size > 1)


def element_of_call(value: object) -> Element | None:
    """The element of a pickled `numpy.dtype`, or None where only numpy could tell."""
    return _element(value, _DEEPEST, {})


# By the call's `id()` and the depth that is left: a file may name one dtype for all of its fields.
_Known = dict[tuple[int, int], Element | None]


def _part(value: object, depth: int, known: _Known) -> Element | None:
    """The element of a field of a struct, or of one that stands there many times."""
    key = (id(value), depth)
    if key not in known:
        known[key] = _element(value, depth, known)
    return known[key]


def _element(value: object, depth: int, known: _Known) -> Element | None:
    """`depth`: how often it may be a struct, or many elements in one within a struct."""
    if not isinstance(value, Call) or not isinstance(value.func, Global):
        return None
    args, states = value.args, [effect.args[0] for effect in value.effects or ()]
    if value.func.qualified == _TEXTS and not states:
        return Element("T", 16, False, True)
    if value.func.qualified != "numpy.dtype" or not isinstance(args, tuple) or not args:
        return None
    if len(states) > 1:
        return None
    state = states[0] if states else (3, "|", None, None, None, -1, -1, 0)
    if not isinstance(state, tuple) or len(state) < 8 or state[1] not in ("<", ">", "|", "="):
        return None
    code = _code(args[0], state)
    if state[2] is not None:
        return _repeated(code, state, depth - 1, known) if 0 < depth < _DEEPEST else None
    if state[4] is not None:
        return _structured(code, state, depth - 1, known) if depth else None
    found = element_of(str(state[1]) + code)
    if found is None:
        return None
    flags, itemsize = state[7], state[5]
    if flags not in ((_HAS_OBJECTS,) if found.objects else _PLAIN):
        return None
    if type(itemsize) is int and itemsize not in (-1, found.itemsize):
        return None
    return found


def _code(kind: object, state: tuple[object, ...]) -> str:
    """numpy's code; that of a `numpy.record` is a struct's, as long as its state says."""
    record = isinstance(kind, Global) and kind.qualified == "numpy.record"
    if record and state[4] is not None:
        return f"V{state[5]}"
    return kind if isinstance(kind, str) else ""


def _structured(code: str, state: tuple[object, ...], depth: int, known: _Known) -> Element | None:
    """A struct of elements: how long it is, not what is in it.

    It may hold objects, and the flags that say so are the file's to choose: both are looked at.
    """
    fields, itemsize, flags = state[4], state[5], state[7]
    if not isinstance(fields, dict) or flags not in _STRUCTURED or code != f"V{itemsize}":
        return None
    for field in fields.values():
        part = _part(field[0], depth, known) if isinstance(field, tuple) and field else None
        if part is None or part.objects:
            return None
    return Element(code, int(code[1:]), False) if type(itemsize) is int and itemsize >= 0 else None


def _repeated(code: str, state: tuple[object, ...], depth: int, known: _Known) -> Element | None:
    """Many elements in one field of a struct, exactly as long as they are together."""
    inside, itemsize, flags = state[2], state[5], state[7]
    if not isinstance(inside, tuple) or len(inside) != 2 or state[4] is not None:
        return None
    part, shape = _part(inside[0], depth, known), shape_of(inside[1])
    if part is None or part.objects or shape is None or flags not in (*_PLAIN, *_STRUCTURED):
        return None
    if code != f"V{itemsize}" or nbytes(part, shape) != itemsize:
        return None
    return Element(code, nbytes(part, shape), False)


def nbytes(element: Element, shape: tuple[int, ...]) -> int:
    """Bytes of an array of that many elements. The shape has no negative sizes."""
    return prod(shape) * element.itemsize


def shape_of(value: object) -> tuple[int, ...] | None:
    """The tuple that `value` is, if it could be a shape."""
    if not isinstance(value, tuple) or not sizes(value) or any(size < 0 for size in value):
        return None
    return value if prod(value) < _LONGEST else None


def array_at(
    blob: Blob, key: str, offset: int, element: Element, shape: tuple[int, ...], fortran: bool
) -> tuple[object, Storage | None]:
    """The tensor that an array's bytes at `offset` are; `Inert` if no tensor has such elements."""
    dtype = BY_NUMPY.get(element.code)
    if dtype is None:
        return Inert(f"numpy array of {element.code}, {len(shape)}-dimensional"), None
    # The two halves of a complex number are swapped each for itself.
    unit = element.itemsize // (2 if dtype.kind == "complex" else 1)
    storage = Storage(
        key, nbytes(element, shape), blob, offset=offset, swapped=unit if element.big else 0
    )
    stride = contiguous_stride(shape)
    if fortran:
        stride = tuple(reversed(contiguous_stride(tuple(reversed(shape)))))
    return TensorRecord(dtype, shape, stride, 0, storage), storage
