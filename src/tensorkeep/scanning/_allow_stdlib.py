"""Allowlisted names of the standard library: what pickle writes for plain values.

Sources: CPython 3.11 `Lib/pickle.py`, `Lib/copyreg.py`, `Modules/_datetimemodule.c`, and the
`__reduce__` methods of the classes named; checked against what `pickle.dumps` writes.
"""

from __future__ import annotations

import re

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import (
    EffectRule,
    Entry,
    KindOf,
    Rule,
    any_of,
    anything,
    inert_key,
    is_named,
    items,
    members,
    state,
    takes,
)
from tensorkeep.scanning._allow_records import plain_tuple
from tensorkeep.scanning._allow_table import entry_of, kind_of

_DECIMAL = re.compile(
    r"[+-]?(\d{1,1000}(\.\d{0,1000})?|\.\d{1,1000})(E[+-]?\d{1,18})?"
    r"|[+-]?Infinity|[+-]?s?NaN\d{0,100}",
    re.ASCII | re.IGNORECASE,
)
_FRACTION = re.compile(r"-?\d{1,1000}(/\d{1,1000})?", re.ASCII)
# APPENDS and ADDITEMS call what lies under the first three names; the others are Namespace's own.
_SHADOWS = ("append", "extend", "add", "_get_kwargs", "_get_args")
_ATOMS = frozenset({"none", "bool", "int", "float", "str", "bytes"})
_FRESH_CLASSES = ("plain-class", "module-class")
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


def _text(pattern: re.Pattern[str]) -> Rule:
    def rule(args: tuple[object, ...], _: KindOf) -> bool:
        return len(args) == 1 and type(args[0]) is str and pattern.fullmatch(args[0]) is not None

    return rule


def _latin1(args: tuple[object, ...], _: KindOf) -> bool:
    return len(args) == 2 and type(args[0]) is str and args[1] in ("latin1", "latin-1")


def _pairs(args: tuple[object, ...], kind: KindOf) -> bool:
    if args == ():
        return True
    if len(args) != 1 or type(args[0]) is not list:
        return False
    return all(
        type(pair) in (list, tuple) and len(pair) == 2 and inert_key(pair[0]) for pair in args[0]
    )


def _all_strings(args: tuple[object, ...], _: KindOf) -> bool:
    return all(type(arg) is str for arg in args)


def _singleton_type(args: tuple[object, ...], kind: KindOf) -> bool:
    return len(args) == 1 and (args[0] is None or kind(args[0]) == "singleton")


def _new_style(args: tuple[object, ...], kind: KindOf) -> bool:
    # _reconstructor(cls, base, value) calls base.__new__(cls, value): with object it takes None.
    if len(args) != 3:
        return False
    cls, base, value = args
    if is_named(base, "builtins", "tuple"):
        return kind(cls) == "tuple-class" and type(value) is tuple and _listed(cls, value, kind)
    if not is_named(base, "builtins", "object") or value is not None:
        return False
    return is_named(cls, "builtins", "object") or kind(cls) in _FRESH_CLASSES


def _listed(cls: object, value: tuple[object, ...], kind: KindOf) -> bool:
    entry = entry_of(cls)
    return entry is not None and entry.rule is not None and entry.rule(value, kind)


def _new_object(args: tuple[object, ...], kind: KindOf) -> bool:
    return len(args) == 1 and kind(args[0]) in _FRESH_CLASSES


def _bound(value: object) -> bool:
    # Not a slice: taking a long chain of them apart overflows CPython's stack.
    if type(value) is tuple:
        return inert_key(value) and all(map(_bound, value))
    return kind_of(value) in _BOUNDS


def _slice(args: tuple[object, ...], _: KindOf) -> bool:
    return len(args) == 3 and all(map(_bound, args))


def _uuid_state(_: Call, args: tuple[object, ...]) -> bool:
    if len(args) != 1 or type(args[0]) is not dict:
        return False
    return all(
        (key == "int" and type(value) is int) or (key == "is_safe" and _is_safe(value))
        for key, value in args[0].items()
    )


def _is_safe(value: object) -> bool:
    return type(value) in (int, type(None)) or kind_of(value) == "enum"


def plain_attribute(name: str) -> bool:
    """Whether an instance attribute of this name shadows nothing that anybody calls."""
    return not name.startswith("__") and name not in _SHADOWS


_ANY_STATE: dict[str, EffectRule] = {"BUILD": state(plain_attribute)}
_ITEMS: dict[str, EffectRule] = {"SETITEM": items, "SETITEMS": items}
_APPENDS: dict[str, EffectRule] = {"APPEND": anything, "APPENDS": anything}
_MEMBERS: dict[str, EffectRule] = {"ADDITEMS": members}
_ORDERED: dict[str, EffectRule] = {**_ITEMS, "BUILD": state(lambda key: key == "_metadata")}
_UUID: dict[str, EffectRule] = {"BUILD": _uuid_state}

_BOUNDS = _ATOMS | frozenset({"number", "date", "timedelta"})
_FACTORY = "class"  # calling it with nothing makes an empty value: what a defaultdict may do


def _makes(
    module: str,
    name: str,
    rule: Rule,
    makes: str,
    why: str,
    *,
    reference: str = "",
    effects: dict[str, EffectRule] | None = None,
) -> Entry:
    return Entry(module, name, why, True, False, reference, rule, makes, effects=effects or {})


def _builtin(
    name: str, rule: Rule, why: str, effects: dict[str, EffectRule] | None = None
) -> Entry:
    return _makes("builtins", name, rule, name, why, reference=_FACTORY, effects=effects)


_CONTAINERS = (
    _makes(
        "collections",
        "OrderedDict",
        _pairs,
        "ordered-dict",
        "makes a dictionary",
        reference=_FACTORY,
        effects=_ORDERED,
    ),
    _makes(
        "collections",
        "defaultdict",
        any_of(takes(), takes("class|none")),
        "dictionary",
        "makes a dictionary whose missing values come from a builtin type",
        reference=_FACTORY,
        effects=_ITEMS,
    ),
    _makes(
        "collections",
        "Counter",
        takes("dict?"),
        "dictionary",
        "makes a dictionary",
        reference="class",
        effects=_ITEMS,
    ),
    _makes(
        "collections",
        "deque",
        takes("list|tuple?", "whole|none"),
        "deque",
        "makes a list that is quick at both ends",
        reference=_FACTORY,
        effects=_APPENDS,
    ),
)

_BUILTINS = (
    _builtin("set", takes("keys?"), "makes a set of values that hash quickly", _MEMBERS),
    _builtin("frozenset", takes("keys?"), "makes a set of values that hash quickly"),
    _builtin("list", takes("list|tuple?"), "copies a list", _APPENDS),
    _builtin("tuple", plain_tuple, "copies a small tuple; a deep one could not be hashed"),
    _builtin("dict", takes("dict?"), "copies a dictionary", _ITEMS),
    _builtin("complex", takes("float|int", "float|int?"), "makes a number"),
    _builtin(
        "bytearray",
        any_of(takes("bytes?"), takes("str", "encoding")),
        "copies bytes that the file holds",
    ),
    _builtin("bytes", any_of(takes("bytes?"), takes("list")), "copies bytes that the file holds"),
    _builtin("slice", _slice, "holds three plain values"),
    _builtin("range", takes("int", "int?", "int?"), "holds three numbers"),
    _builtin("int", takes(), "makes a zero"),
    _builtin("float", takes(), "makes a zero"),
    _builtin("str", takes(), "makes an empty text"),
    _builtin("bool", takes(), "makes a False"),
    Entry(
        "builtins",
        "object",
        "makes an object that does nothing",
        call=True,
        instance=True,
        reference=_FACTORY,
        rule=takes(),
        makes="object",
    ),
    Entry(
        "builtins",
        "type",
        "names the type of None, Ellipsis or NotImplemented",
        call=True,
        reference="type",
        rule=_singleton_type,
        makes="type",
        fresh=False,
    ),
    Entry("builtins", "Ellipsis", "is a constant", reference="singleton"),
    Entry("builtins", "NotImplemented", "is a constant", reference="singleton"),
)

_VALUES = (
    _makes("_codecs", "encode", _latin1, "bytes", "makes bytes out of text (protocols 0 to 2)"),
    _makes(
        "datetime", "date", takes("raw"), "date", "unpacks a date of four bytes", reference="class"
    ),
    _makes(
        "datetime",
        "time",
        takes("raw", "tzinfo?"),
        "time",
        "unpacks a time of day",
        reference="class",
    ),
    _makes(
        "datetime",
        "datetime",
        takes("raw", "tzinfo?"),
        "date",
        "unpacks a point in time",
        reference="class",
    ),
    _makes(
        "datetime",
        "timedelta",
        takes("int", "int?", "int?"),
        "timedelta",
        "makes a duration",
        reference="class",
    ),
    _makes(
        "datetime",
        "timezone",
        takes("timedelta", "str?"),
        "tzinfo",
        "makes a fixed offset",
        reference="class",
    ),
    _makes(
        "decimal",
        "Decimal",
        _text(_DECIMAL),
        "number",
        "reads a number of bounded length",
        reference="class",
    ),
    _makes(
        "fractions",
        "Fraction",
        any_of(_text(_FRACTION), takes("int", "int")),
        "number",
        "makes a number of bounded length (an exponent could be made to fill the memory)",
        reference="class",
    ),
    *(
        _makes(
            module,
            name,
            _all_strings,
            "path",
            "joins the parts of a path, opens nothing",
            reference="class",
        )
        for module in ("pathlib", "pathlib._local")
        for name in _PATHS
    ),
)

_TYPECODES = frozenset("bBuwhHiIlLqQfd")
_ADDRESSES = tuple(
    f"IPv{version}{what}" for version in (4, 6) for what in ("Address", "Network", "Interface")
)
_FORMATS = 22  # of machines, numbered from 0


def _typecode(value: object) -> bool:
    return type(value) is str and value in _TYPECODES


def _array(args: tuple[object, ...], kind: KindOf) -> bool:
    return len(args) == 2 and _typecode(args[0]) and kind(args[1]) in ("list", "str")


def _array_bytes(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) != 4 or not is_named(args[0], "array", "array") or not _typecode(args[1]):
        return False
    return type(args[2]) is int and 0 <= args[2] < _FORMATS and kind(args[3]) == "bytes"


_MORE_VALUES = (
    *(
        _makes(
            "ipaddress",
            name,
            takes("int|str"),
            "address",
            "holds a number",
            reference="plain-value",
        )
        for name in _ADDRESSES
    ),
    _makes("array", "array", _array, "array", "copies numbers", reference="plain-value"),
    _makes(
        "array", "_array_reconstructor", _array_bytes, "array", "copies numbers out of their bytes"
    ),
)

_OBJECTS = (
    Entry(
        "argparse",
        "Namespace",
        "holds attributes; its class calls none of them",
        call=True,
        instance=True,
        reference="plain-class",
        rule=takes(),
        makes="namespace",
        effects=_ANY_STATE,
    ),
    Entry(
        "types",
        "SimpleNamespace",
        "holds attributes; its class calls none of them",
        call=True,
        instance=True,
        reference="plain-class",
        rule=takes(),
        makes="namespace",
        effects=_ANY_STATE,
    ),
    Entry(
        "uuid",
        "UUID",
        "holds one number, set by its own __setstate__",
        instance=True,
        reference="plain-class",
        rule=takes(),
        makes="uuid",
        effects=_UUID,
    ),
    # What these two make is what their class makes: see allowlist.entry_of.
    Entry(
        "copyreg",
        "_reconstructor",
        "makes an empty instance of an allowlisted class (protocols 0 and 1)",
        call=True,
        rule=_new_style,
    ),
    Entry(
        "copyreg",
        "__newobj__",
        "makes an empty instance of an allowlisted class",
        call=True,
        rule=_new_object,
    ),
)

ENTRIES: tuple[Entry, ...] = (*_CONTAINERS, *_BUILTINS, *_VALUES, *_MORE_VALUES, *_OBJECTS)
