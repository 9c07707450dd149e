"""Allowlisted names of numpy: arrays, scalars and dtypes as its `__reduce__` methods write them.

Sources: numpy 2 `_core/src/multiarray/{methods,descriptor,multiarraymodule}.c` (`array_reduce`,
`array_setstate`, `arraydescr_reduce`, `arraydescr_setstate`, `array_scalar`); numpy 1 wrote the
same under `numpy.core`. The rules on a dtype's state are strict because its numbers are trusted
by C code: a flag that hides an object field makes bytes of the file into pointers.
"""

from __future__ import annotations

import re
from math import prod
from typing import TypeGuard

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import Entry, KindOf, is_named, whole_numbers
from tensorkeep.scanning._allow_table import kind_of

# Text and raw bytes have their length in the code: without one numpy takes a size of -1.
_CODE = re.compile(r"[|<>=]?(?:[?bhilqBHILQefdgFDGmMcu]\d{0,9}|[SUVa]\d{1,9})", re.ASCII)
_OBJECT = re.compile(r"[|<>=]?O\d{0,2}", re.ASCII)
_TEXT_CODE = re.compile(r"[|<>=]?([SUVa])(\d{1,9})", re.ASCII)
_ANY_CODE = re.compile(r"[|<>=]?([a-zA-Z?])(\d{1,9})", re.ASCII)
_VOID = re.compile(r"[|<>=]?V\d{1,9}", re.ASCII)
_DATETIME = re.compile(r"[|<>=]?[mM]\d{0,9}", re.ASCII)
_MOST_UNITS = 1 << 31
_OBJECT_FLAGS = 63
_ALIGNMENTS = (-1, 1, 2, 4, 8, 16, 32, 64)  # numpy divides by it
_MOST_WITHOUT_BYTES = 1 << 20
_DTYPE_DEPTH = 4  # a dtype's field: in a pair, in a dict, in a state, in the arguments

_SCALARS_TEXT = (
    "record inexact complexfloating flexible character signedinteger unsignedinteger "
    "bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 "
    "longdouble float128 complex64 complex128 clongdouble complex256 intc uintc longlong ulonglong "
    "datetime64 timedelta64 str_ bytes_ void object_ number generic integer floating"
)
ARRAY_CLASSES = ("np-array-class", "np-array-subclass")
_SCALARS = tuple(_SCALARS_TEXT.split())


def _dtype_args(args: tuple[object, ...], _: KindOf) -> bool:
    # The third argument asks for a copy: without it BUILD would meet numpy's own shared dtype.
    if len(args) != 3 or args[1] not in (0, 1) or args[2] not in (1,):
        return False
    if type(args[0]) is not str:
        return is_named(args[0], "numpy", "record")
    return _CODE.fullmatch(args[0]) is not None or _OBJECT.fullmatch(args[0]) is not None


def is_record(dtype: object) -> bool:
    """Whether a dtype's call names `numpy.record`: a struct as long as its state says."""
    args = dtype.args if isinstance(dtype, Call) else ()
    return type(args) is tuple and bool(args) and is_named(args[0], "numpy", "record")


def _has_parts(dtype: Call) -> bool:
    """Whether a dtype may have fields or be many elements: raw bytes and records only."""
    code = dtype.args[0] if type(dtype.args) is tuple else None
    return is_record(dtype) or (type(code) is str and _VOID.fullmatch(code) is not None)


def is_settled(dtype: object) -> bool:
    """Whether a record has its length for good: one that grew would reach beyond its arrays."""
    if not isinstance(dtype, Call) or not is_record(dtype):
        return True
    effects = dtype.effects or []
    return len(effects) == 1 and effects[0].kind == "BUILD"


def used_early(args: object, offset: int, depth: int = _DTYPE_DEPTH) -> bool:
    """Whether what happens at `offset` is given a record that gets its length only later."""
    if isinstance(args, Call):
        effects = args.effects or []
        return is_record(args) and (not effects or effects[-1].offset > offset)
    if depth == 0 or type(args) not in (tuple, dict):
        return False
    inside = args.values() if type(args) is dict else args
    return any(used_early(part, offset, depth - 1) for part in inside)  # type: ignore[attr-defined]


def holds_objects(dtype: object) -> bool:
    """Whether a dtype's call names the object dtype: its arrays keep Python values in a list."""
    args = dtype.args if isinstance(dtype, Call) else ()
    code = args[0] if type(args) is tuple and args else ""
    return type(code) is str and _OBJECT.fullmatch(code) is not None


def _dtype_state(target: Call, args: tuple[object, ...]) -> bool:
    state = args[0] if len(args) == 1 else None
    if type(state) is not tuple or len(state) not in (8, 9) or type(target.args) is not tuple:
        return False
    version, order, subdtype, names, fields, size, alignment, flags = state[:8]
    if not target.args:
        return False
    if version not in (3, 4) or order not in ("|", "<", ">", "="):
        return False
    if not all(type(number) is int for number in (size, alignment, flags)):
        return False
    # numpy takes size and alignment as they come, for the dtypes that have a length.
    if not _sized(target, size) or alignment not in _ALIGNMENTS:
        return False
    if not _extra(target.args[0], state[8] if len(state) == 9 else None):
        return False
    parts = (subdtype, names, fields)
    # With fields of none at all the object dtype would be told that it holds no objects.
    if parts != (None, None, None) and not _has_parts(target):
        return False
    if subdtype is not None and not is_record(target):
        return names is None and fields is None and not flags & ~0x98 and _subarray(subdtype, size)
    if names is None and fields is None and not is_record(target):
        # The bytes of an object's address would be swapped as well.
        objects = holds_objects(target)
        return (order == "|" and flags == _OBJECT_FLAGS) if objects else flags in (0, 8)
    return subdtype is None and _fields(names, fields, size, flags)


def _sized(target: Call, size: int) -> bool:
    if is_record(target):
        return is_settled(target) and size > 0
    return type(target.args) is tuple and size == _length(target.args[0])


def _length(code: object) -> int:
    """What an honest state has as its size: bytes for text and raw bytes, else -1."""
    found = _TEXT_CODE.fullmatch(code) if type(code) is str else None
    if found is None:
        return -1
    return int(found[2]) * (4 if found[1] == "U" else 1)


def _extra(code: object, extra: object) -> bool:
    if extra is None:
        # The unit of a datetime without one is an address that numpy follows to nowhere.
        return type(code) is not str or _DATETIME.fullmatch(code) is None
    # The unit of a datetime: (metadata or None, (name, number, divisor, event)).
    if type(extra) is not tuple or len(extra) != 2 or extra[0] not in (None, {}):
        return False
    unit = extra[1]
    if type(unit) is not tuple or len(unit) != 4 or not raw_bytes(unit[0]):
        return False
    return all(type(part) is int and 1 <= part < _MOST_UNITS for part in unit[1:])


def raw_bytes(value: object) -> bool:
    # Protocols 0 to 2 write bytes as a call, empty ones as a call of bytes itself.
    if not isinstance(value, Call):
        return type(value) in (bytes, str)
    return is_named(value.func, "_codecs", "encode") or is_named(value.func, "builtins", "bytes")


def _fields(names: object, fields: object, size: int, flags: int) -> bool:
    if type(names) is not tuple or type(fields) is not dict:
        return False
    if not all(type(name) is str for name in names) or not _titled(names, fields):
        return False
    # 0x10 has numpy keep Python's lock, without which an error ends the process; 0x80 is an
    # aligned struct; anything else hides objects.
    if flags & ~0x88 != 0x10:
        return False
    return all(_field(field, size) for field in fields.values())


def _titled(names: tuple[object, ...], fields: dict[object, object]) -> bool:
    """Whether fields are found by their names, and by their titles where they have one."""
    titles = [fields[name][2:] for name in names if type(fields.get(name)) is tuple]  # type: ignore[index]
    known = {title[0] for title in titles if len(title) == 1 and type(title[0]) is str}
    return set(names) <= set(fields) <= set(names) | known


def _field(field: object, size: int) -> bool:
    if type(field) is not tuple or len(field) not in (2, 3):
        return False
    width = _width(field[0])
    offset = field[1]
    return width is not None and type(offset) is int and 0 <= offset <= size - width


def _subarray(subdtype: object, size: int) -> bool:
    """Whether a field of many elements is exactly as long as its elements."""
    if type(subdtype) is not tuple or len(subdtype) != 2 or not whole_numbers(subdtype[1]):
        return False
    width = _width(subdtype[0])
    return width is not None and not is_subarray(subdtype[0]) and width * prod(subdtype[1]) == size


def is_subarray(dtype: object) -> bool:
    """Whether a dtype is a field of many elements: arrays have none of these by themselves."""
    effects = (dtype.effects if isinstance(dtype, Call) else None) or []
    states = [effect.args[0] for effect in effects if effect.args]
    return any(type(state) is not tuple or state[2:3] != (None,) for state in states)


def _width(dtype: object) -> int | None:
    """Bytes of a field's dtype; None for one that holds objects.

    A struct or subarray is as long as its code says: the rule on its own state holds it to that.
    """
    if not isinstance(dtype, Call) or not is_named(dtype.func, "numpy", "dtype"):
        return None
    if type(dtype.args) is not tuple or not dtype.args or holds_objects(dtype):
        return None
    if is_record(dtype):
        return _record_width(dtype)
    code = dtype.args[0]
    found = _ANY_CODE.fullmatch(code) if type(code) is str else None
    if found is None:
        return None
    return int(found[2]) * (4 if found[1] == "U" else 1)


def _record_width(dtype: Call) -> int | None:
    state = dtype.effects[0].args[0] if dtype.effects and is_settled(dtype) else None
    size = state[5] if type(state) is tuple and len(state) > 5 else None
    return size if type(size) is int else None


def _scalar(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) != 2 or kind(args[0]) != "np-dtype" or holds_objects(args[0]):
        return False
    return is_settled(args[0]) and not is_subarray(args[0]) and kind(args[1]) in ("bytes", "str")


def _reconstruct(args: tuple[object, ...], kind: KindOf) -> bool:
    # An honest array starts empty and gets its shape by BUILD, which checks it against the bytes.
    if len(args) != 3 or kind(args[0]) not in ARRAY_CLASSES or args[1] != (0,):
        return False
    return kind(args[2]) in ("bytes", "str")


def array_state(_: Call, args: tuple[object, ...]) -> bool:
    state = args[0] if len(args) == 1 else None
    if type(state) is not tuple or len(state) != 5:
        return False
    version, shape, dtype, fortran, data = state
    if type(version) is not int or not whole_numbers(shape) or is_subarray(dtype):
        return False
    if kind_of(dtype) == "np-string-dtype":
        return fortran in (0, 1) and _texts(dtype, data) and len(data) == prod(shape)
    if not isinstance(dtype, Call) or not is_named(dtype.func, "numpy", "dtype"):
        return False
    if not is_settled(dtype):
        return False
    if holds_objects(dtype):
        # numpy reads as many items as the shape says, whatever the length of the list.
        return fortran in (0, 1) and type(data) is list and len(data) == prod(shape)
    if _without_bytes(dtype) and prod(shape) > _MOST_WITHOUT_BYTES:
        return False
    return fortran in (0, 1) and (raw_bytes(data) or type(data) is bytearray)


def _texts(dtype: object, data: object) -> TypeGuard[list[object]]:
    """Whether these are texts, or what a StringDType has for none: others it would make text of."""
    if type(data) is not list or not isinstance(dtype, Call) or type(dtype.args) is not tuple:
        return False
    absent = {type(dtype.args[1])} if len(dtype.args) > 1 else set()
    return set(map(type, data)) <= {str} | absent


def _without_bytes(dtype: Call) -> bool:
    """Whether an element fills nothing: then no bytes of the file bound how many there are."""
    code = dtype.args[0] if type(dtype.args) is tuple and dtype.args else ""
    found = _TEXT_CODE.fullmatch(code) if type(code) is str else None
    return found is not None and int(found[2]) == 0


def _frombuffer(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) not in (4, 5) or kind(args[0]) not in ("bytes", "bytearray"):
        return False
    if kind(args[1]) != "np-dtype" or holds_objects(args[1]) or not whole_numbers(args[2]):
        return False
    if is_subarray(args[1]) or not is_settled(args[1]):
        return False
    axes = args[4] if len(args) == 5 else None
    return args[3] in ("C", "F", "K", "A") and (axes is None or whole_numbers(axes))


def _empty(module: str) -> Entry:
    return Entry(
        module,
        "_reconstruct",
        "makes an empty array, filled with bytes of the file by BUILD",
        call=True,
        rule=_reconstruct,
        makes="np-array",
        effects={"BUILD": array_state},
    )


def _entries(core: str) -> tuple[Entry, ...]:
    array, number = f"{core}.multiarray", f"{core}.numeric"
    return (
        _empty(array),
        Entry(
            array, "scalar", "makes a number out of its bytes", True, rule=_scalar, makes="number"
        ),
        Entry(
            number,
            "_frombuffer",
            "makes an array over bytes of the file (protocol 5)",
            call=True,
            rule=_frombuffer,
            makes="np-array",
        ),
    )


ENTRIES: tuple[Entry, ...] = (
    *_entries("numpy.core"),
    _empty("numpy.core._internal"),  # before numpy 1.0
    *_entries("numpy._core"),
    Entry("numpy", "ndarray", "is the class of arrays", reference="np-array-class"),
    Entry(
        "numpy",
        "dtype",
        "makes a description of elements, a copy of the file's own",
        call=True,
        reference="np-dtype-class",
        rule=_dtype_args,
        makes="np-dtype",
        effects={"BUILD": _dtype_state},
    ),
    *(Entry("numpy", name, "is the class of numbers", reference="np-scalar") for name in _SCALARS),
)
