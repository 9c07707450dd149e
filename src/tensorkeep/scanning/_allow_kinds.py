"""Kinds of values that a pickle program holds, and the checks that argument rules are made of.

A *kind* is one word for what a value would be if the program ran ("storage", "tensor", "dtype",
"str"). It follows from the value's own node alone, so finding it costs no walk: whether the call
that makes a tensor is itself in order is judged where that call stands in the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tensorkeep.pickles import Call, Global, Persistent

KindOf = Callable[[object], str]
Check = Callable[[object, KindOf], bool]
Rule = Callable[[tuple[object, ...], KindOf], bool]
EffectRule = Callable[[Call, tuple[object, ...]], bool]

_KEY_PARTS = 32
_MAX_DIMENSIONS = 64  # torch and numpy have no tensor of more
_MAX_FLAGS = 64

_NATIVE: dict[type, str] = {
    type(None): "none",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    bytearray: "bytearray",
    tuple: "tuple",
    list: "list",
    dict: "dict",
    set: "set",
    frozenset: "frozenset",
}
_ATOMS = frozenset({"none", "bool", "int", "float", "str", "bytes"})
_ATOM_TYPES = frozenset({type(None), bool, int, float, str, bytes})
_INTS = frozenset({int})


@dataclass(frozen=True, slots=True)
class Entry:
    """One allowlisted name, exactly as CPython would resolve it.

    `call`: may be called (REDUCE, INST, OBJ); `instance`: may be made by NEWOBJ, its arguments
    under the same rule; `reference`: the word for what a mention of it means, or "".
    `rule` says which positional arguments are in order (no entry takes keyword arguments).
    `makes` is the kind of the result, `fresh` whether that is an object of this file alone.
    `effects` maps an effect's kind to the rule for its target and arguments; no rule, not allowed.
    `bounded`: the rule looks at a bounded number of values, however long the arguments are.
    `kept`: a function that may lie in the state of an object whose own entry says where.
    `mild`: arguments with which a name of the danger table is only suspicious, or None.
    `blame`: the rule (of `words`) that an effect breaks which `effects` refuse, or None.
    """

    module: str
    name: str
    why: str
    call: bool = False
    instance: bool = False
    reference: str = ""
    rule: Rule | None = None
    makes: str = ""
    fresh: bool = True
    effects: dict[str, EffectRule] = field(default_factory=dict)
    bounded: bool = False
    kept: bool = False
    mild: Rule | None = None
    blame: Callable[[Call, tuple[object, ...]], str] | None = None


def native_kind(value: object) -> str:
    """The kind of an atom or a plain container, "" for a node."""
    return _NATIVE.get(type(value), "")


def is_named(value: object, module: str, name: str) -> bool:
    """Whether `value` is exactly this name, written in the file and not computed by it."""
    return (
        isinstance(value, Global)
        and value.module == module
        and value.name == name
        and value.operands is None
    )


def whole_numbers(value: object) -> bool:
    """Whether `value` is a tuple of integers, none negative: a shape or a stride."""
    if type(value) is not tuple or len(value) > _MAX_DIMENSIONS:
        return False
    return not value or (set(map(type, value)) == _INTS and min(value) >= 0)


def inert_key(value: object) -> bool:
    """Whether hashing `value` is quick and calls nothing.

    A deep tuple overflows CPython's stack when it is hashed, and one that holds itself many times
    over costs time without end: a key may have a few parts only.
    """
    if type(value) is not tuple:
        return type(value) in _ATOM_TYPES or isinstance(value, Call | Global | Persistent)
    parts = [value]
    for part in parts:  # grows while it is walked
        if len(parts) + len(part) > _KEY_PARTS:
            return False
        for item in part:
            if type(item) is tuple:
                parts.append(item)
            elif not inert_key(item):
                return False
    return True


def empty_hooks(value: object, _: KindOf) -> bool:
    """Whether a tensor's backward hooks are none at all: they would be called by a training."""
    if value is None or (type(value) is dict and not value):
        return True
    if type(value) is not Call or not is_named(value.func, "collections", "OrderedDict"):
        return False
    return value.args == () and not value.effects


def flat_dict(value: object, kind: KindOf) -> bool:
    """Whether `value` is a dictionary of short text to atoms (`conj` and `neg` bits)."""
    if type(value) is not dict or len(value) > _MAX_FLAGS:
        return False
    return all(type(key) is str and kind(item) in _ATOMS for key, item in value.items())


def _shape(value: object, kind: KindOf) -> bool:
    return whole_numbers(value) or kind(value) == "size"


def _whole(value: object, _: KindOf) -> bool:
    return type(value) is int and value >= 0


def _latin1(value: object, kind: KindOf) -> bool:
    # Protocols 0 to 2 have no opcode for bytes: they write them as _codecs.encode(text, 'latin1').
    return kind(value) in ("bytes", "str")


def _keys(value: object, _: KindOf) -> bool:
    if not isinstance(value, list | tuple | set | frozenset):
        return False
    return all(inert_key(item) for item in value)


def _anything(_value: object, _kind: KindOf) -> bool:
    return True


CHECKS: dict[str, Check] = {
    "shape": _shape,
    "whole": _whole,
    "hooks": empty_hooks,
    "flat-dict": flat_dict,
    "raw": _latin1,
    "any": _anything,
    "keys": _keys,
    "encoding": lambda value, _: value in ("latin-1", "latin1"),
}


def takes(*specs: str) -> Rule:
    """The rule that arguments are of these kinds, in order.

    A spec is a kind, several joined by "|", or a word of `CHECKS`; "?" at its end means that it
    and what follows may be absent.
    """
    checks = [_check(spec.removesuffix("?")) for spec in specs]
    least = next((i for i, spec in enumerate(specs) if spec.endswith("?")), len(specs))

    def rule(args: tuple[object, ...], kind: KindOf) -> bool:
        if not least <= len(args) <= len(checks):
            return False
        return all(check(arg, kind) for check, arg in zip(checks, args, strict=False))

    return rule


def _check(spec: str) -> Check:
    options = [CHECKS.get(word) or _is_kind(word) for word in spec.split("|")]
    if len(options) == 1:
        return options[0]
    return lambda value, kind: any(option(value, kind) for option in options)


def _is_kind(word: str) -> Check:
    return lambda value, kind: kind(value) == word


def any_of(*rules: Rule) -> Rule:
    """The rule that one of `rules` holds."""
    return lambda args, kind: any(rule(args, kind) for rule in rules)


def items(_: Call, args: tuple[object, ...]) -> bool:
    """Rule for SETITEM(S) on a dictionary: every key is one that hashes quickly."""
    return all(type(key) is str or inert_key(key) for key in args[::2])


def members(_: Call, args: tuple[object, ...]) -> bool:
    """Rule for ADDITEMS on a set."""
    return all(inert_key(item) for item in args)


def anything(_target: Call, _args: tuple[object, ...]) -> bool:
    """Rule for APPEND(S): a list or deque takes any object and calls nothing of it."""
    return True


def state(allowed: Callable[[str], bool]) -> EffectRule:
    """Rule for BUILD with a plain dictionary whose keys `allowed` accepts; slot state never."""

    def rule(_: Call, args: tuple[object, ...]) -> bool:
        if len(args) != 1 or type(args[0]) is not dict:
            return False
        return all(type(key) is str and allowed(key) for key in args[0])

    return rule
