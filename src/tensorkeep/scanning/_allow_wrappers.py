"""Allowlisted wrappers of the standard library around a container of the file's own, and iterators.

Sources: CPython 3.11 `Lib/collections/__init__.py`, `Lib/string.py`, and the `__reduce__` and
`__setstate__` of the iterators (`Objects/{iterobject,listobject,tupleobject,unicodeobject,
bytesobject,bytearrayobject,rangeobject,enumobject}.c`, `Python/bltinmodule.c`): the position that
BUILD sets is held within the container by each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import EffectRule, Entry, KindOf, takes
from tensorkeep.scanning._allow_table import kind_of

_MAPPINGS = frozenset({"dict", "ordered-dict", "dictionary"})
# What is walked is data: an object that brings an `__iter__` of its own is none of these. Iterators
# of iterators are refused, as taking a long chain of them apart overflows the stack.
_WALKED = "list|tuple|str|bytes|bytearray|range|np-array"
_ZIPPED = 16


def _one_attribute(name: str, inside: Callable[[object], bool]) -> EffectRule:
    """Rule for BUILD: this attribute and no other, so that nothing of the class is hidden."""

    def rule(_: Call, args: tuple[object, ...]) -> bool:
        state = args[0] if len(args) == 1 else None
        return type(state) is dict and state.keys() == {name} and inside(state[name])

    return rule


def _maps(value: object) -> bool:
    return type(value) is list and all(kind_of(item) in _MAPPINGS for item in value)


def _is(*kinds: str) -> Callable[[object], bool]:
    return lambda value: kind_of(value) in kinds


def _wrapper(
    module: str, name: str, attribute: str, inside: Callable[[object], bool], makes: str
) -> Entry:
    return Entry(
        module,
        name,
        f"holds a container of the file as `{attribute}`, and nothing else",
        instance=True,
        reference="plain-class",
        # `UserString` is given its text a first time by NEWOBJ, which no `__new__` looks at.
        rule=takes("str?") if name == "UserString" else takes(),
        makes=makes,
        effects={"BUILD": _one_attribute(attribute, inside)},
    )


def _position(_: Call, args: tuple[object, ...]) -> bool:
    return len(args) == 1 and type(args[0]) is int


def _strict(_: Call, args: tuple[object, ...]) -> bool:
    return len(args) == 1 and type(args[0]) is bool


def _zipped(args: tuple[object, ...], kind: KindOf) -> bool:
    return len(args) <= _ZIPPED and all(kind(arg) == "iterator" for arg in args)


def _iterator(
    name: str, rule: Callable[[tuple[object, ...], KindOf], bool], why: str, makes: str
) -> Entry:
    state = {"iterator": _position, "zipped": _strict}.get(makes)
    effects: dict[str, EffectRule] = {"BUILD": state} if state else {}
    # A class keeps a reference; `iter` is a function, and whoever held it could call it.
    reference = "" if name == "iter" else "iterator-class"
    mild = takes("any") if name == "iter" else None
    return Entry(
        "builtins", name, why, True, False, reference, rule, makes, effects=effects, mild=mild
    )


ENTRIES: tuple[Entry, ...] = (
    _wrapper("collections", "UserDict", "data", _is("dict"), "user-dict"),
    _wrapper("collections", "UserList", "data", _is("list"), "user-list"),
    _wrapper("collections", "UserString", "data", _is("str"), "user-string"),
    _wrapper("collections", "ChainMap", "maps", _maps, "chain-map"),
    _wrapper("string", "Template", "template", _is("str"), "template"),
    _iterator("iter", takes(_WALKED), "walks a container of the file", "iterator"),
    _iterator("reversed", takes("list|tuple|str"), "walks a container backwards", "iterator"),
    _iterator("enumerate", takes("iterator", "int"), "counts what an iterator gives", "numbered"),
    _iterator("zip", _zipped, "walks containers side by side", "zipped"),
)
