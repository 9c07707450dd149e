"""Every edit by the name that recipes call it, and edits as plain values: recipe, JSON, lineage.

Others add theirs by an entry point in the group `tensorkeep.edits`, named as the op; it is looked
for when a recipe asks for a name that is not in the table.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tensorkeep.edits.edit import Edit
from tensorkeep.errors import BadArgument, TensorkeepError

GROUP = "tensorkeep.edits"
# Op: the module and the class. Imported when a recipe asks for it.
OPS = {
    "rename": "tensorkeep.edits.names:Rename",
    "swap": "tensorkeep.edits.names:Swap",
    "strip": "tensorkeep.edits.names:Strip",
    "add-prefix": "tensorkeep.edits.names:AddPrefix",
    "drop": "tensorkeep.edits.names:Drop",
    "keep": "tensorkeep.edits.names:Keep",
    "slice": "tensorkeep.edits.shaping:Slice",
    "pad": "tensorkeep.edits.shaping:Pad",
    "transpose": "tensorkeep.edits.shaping:Transpose",
    "reshape": "tensorkeep.edits.shaping:Reshape",
    "cast": "tensorkeep.edits.shaping:CastTo",
    "scale": "tensorkeep.edits.shaping:Scale",
    "tie": "tensorkeep.edits.shaping:Tie",
    "untie": "tensorkeep.edits.shaping:Untie",
    "resize": "tensorkeep.edits.resizing:Resize",
    "resize-positions": "tensorkeep.edits.resizing:ResizePositions",
    "inflate-conv": "tensorkeep.edits.resizing:InflateConv",
    "fuse": "tensorkeep.edits.attention:Fuse",
    "split": "tensorkeep.edits.attention:Split",
    "fold-weight-norm": "tensorkeep.edits.weight_norm:FoldWeightNorm",
    "unfold-weight-norm": "tensorkeep.edits.weight_norm:UnfoldWeightNorm",
    "merge-lora": "tensorkeep.edits.lora:MergeLora",
    "average": "tensorkeep.edits.merging:Average",
    "ema": "tensorkeep.edits.merging:Ema",
    "dequantize": "tensorkeep.edits.dequantized:Dequantize",
}
_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


class BadField(BadArgument):
    """What a recipe says of one edit is wrong; `key` is the field, "op" included."""

    key = ""
    default_remedy = "The documentation lists every op and its fields under edits."


def _bad(key: str, subject: str, expected: str, got: str, remedy: str = "") -> BadField:
    error = BadField(subject, expected=expected, got=got, remedy=remedy)
    error.key = key
    return error


def kind(op: str) -> type[Edit]:
    """The class of the edit `op`. Raises `BadArgument`, with the nearest known name."""
    if op in OPS:
        module, _, name = OPS[op].partition(":")
        known: type[Edit] = getattr(import_module(module), name)
        return known
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=op):
        found: Any = point.load()
        if is_dataclass(found) and getattr(found, "op", "") == op:
            own: type[Edit] = found  # type: ignore[assignment]
            return own
        raise _bad("op", f"op {op!r}", "a dataclass with this op", f"{point.value}")
    raise _bad("op", "op", "one of " + ", ".join(OPS), repr(op), _nearest(op, OPS))


def _nearest(name: str, known: object) -> str:
    close = get_close_matches(name, list(known), 1, 0.5)  # type: ignore[call-overload]
    return f"Did you mean {close[0]!r}?" if close else ""


def edit_of(table: Mapping[str, Any]) -> Edit:
    """The edit that a table of a recipe says. Raises `BadField`, a `BadArgument`."""
    if not isinstance(table.get("op"), str):
        raise _bad("op", "an edit", 'op = "..."', repr(table["op"]) if "op" in table else "none")
    cls = kind(table["op"])
    hints = get_type_hints(cls)
    taken = {field.name: field for field in fields(cls) if field.init}  # type: ignore[arg-type]
    given = {}
    for key, value in table.items():
        if key == "op":
            continue
        if key not in taken:
            expected = "the fields " + ", ".join(taken) if taken else "no fields"
            raise _bad(key, f"{cls.op}, field {key!r}", expected, repr(key), _nearest(key, taken))
        given[key] = _value(value, hints[key], f"{cls.op}, field {key!r}", key)
    for name, field in taken.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            every = ", ".join(taken)
            raise _bad("op", cls.op, f"a field {name!r}", "none", f"Its fields are: {every}.")
    try:
        return cls(**given)
    except TensorkeepError as error:
        raise _bad("op", error.subject, error.expected, error.got, error.remedy) from None


def _value(value: object, hint: Any, subject: str, key: str) -> object:  # noqa: ANN401
    try:
        return _fitted(value, hint)
    except TypeError:
        raise _bad(key, subject, _words(hint), repr(value)) from None


def _fitted(value: object, hint: Any) -> Any:  # noqa: ANN401
    """`value` as the field's type wants it. Raises `TypeError` if it is no such value."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for one in inner:
            try:
                return _fitted(value, one)
            except TypeError:
                continue
    elif origin is Literal:
        if any(type(value) is type(one) and value == one for one in inner):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_fitted(item, inner[0]) for item in value)
        if len(inner) == len(value):
            return tuple(_fitted(item, one) for item, one in zip(value, inner, strict=True))
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_fitted(k, inner[0]): _fitted(v, inner[1]) for k, v in value.items()}
    elif hint is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    elif type(value) is hint:
        return value
    raise TypeError


def _words(hint: Any) -> str:  # noqa: ANN401
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in inner if one is not types.NoneType)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin is tuple:
        return "a list, each " + " or ".join(_words(one) for one in inner if one is not Ellipsis)
    return "a table" if origin else _WORDS.get(hint, str(hint))


def table_of(edit: object) -> dict[str, Any]:
    """`edit` as a table of a recipe: its op and the fields that are not at their defaults.

    Raises `BadArgument` for what is no dataclass.
    """
    if not is_dataclass(edit) or isinstance(edit, type):
        raise BadArgument(
            "an edit",
            expected="a dataclass with an op",
            got=repr(edit),
            remedy="Make it a frozen dataclass with an op.",
        )
    table: dict[str, Any] = {"op": getattr(edit, "op", type(edit).__name__)}
    for field in fields(edit):
        value = getattr(edit, field.name)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if value != default or type(value) is not type(default):
            table[field.name] = list(value) if isinstance(value, tuple) else value
    return table
