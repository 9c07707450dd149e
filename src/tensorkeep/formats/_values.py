"""What calls mean that build plain values: an OrderedDict, a Namespace, a numpy scalar.

Sources: the `__reduce__` of each class, as CPython 3.11 and numpy 1.26 to 2.3 write it.
Whatever is not listed stays `Inert`.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorkeep.formats import _modules, _numpy_values, _words
from tensorkeep.formats.contents import Inert, Items, sizes
from tensorkeep.pickles import Call, Effect, Global, Persistent

# How protocols 0 to 2 spell bytes: they have no opcode for them.
ENCODE = "_codecs.encode"
_SEARCH_LIMIT = 1_000_000
_ATOMS = (str, int, float, bytes, bool, type(None))


def plain_object(call: Call, lens: Callable[[object], object]) -> object:
    """`Items`, a list, a tuple, an atom or words for a known class; else `Inert`."""
    name = _modules.class_name(call)
    build = _BUILDERS.get(name)
    value = build(call, name) if build else None
    return _opaque(call, name) if value is None else value


def _opaque(call: Call, name: str) -> Inert:
    if holds_storage(call):
        return Inert(f"object of class {name}", call, unread="object")
    return _words.thing(call, name) or Inert(f"object of class {name}", call)


def _mapping(call: Call, name: str) -> object:
    pairs: dict[object, object] = {}
    others: list[tuple[object, object]] = []
    source = _initial(call, name)
    if source is None:
        return None
    for key, value in [*source, *_written(call)]:
        if isinstance(key, _ATOMS):
            pairs[key] = value
        else:
            others.append((key, value))
    items = Items(name, [*pairs.items(), *others])
    for effect in call.effects or ():
        if effect.kind == "BUILD" and isinstance(effect.args[0], dict):
            items.attributes.update(
                (key, value) for key, value in effect.args[0].items() if isinstance(key, str)
            )
    return items


def _initial(call: Call, name: str) -> list[tuple[object, object]] | None:
    """The pairs that the constructor was given; None if its arguments are something else."""
    args = call.args
    if not isinstance(args, tuple):
        return None
    if name == "collections.defaultdict" and call.kind == "REDUCE":
        args = args[1:]
    if not args or call.kind != "REDUCE":
        return []
    given = args[0]
    if isinstance(given, dict):
        return list(given.items())
    if not isinstance(given, list):
        return None
    pairs = [tuple(pair) for pair in given if isinstance(pair, list | tuple)]
    if len(pairs) != len(given) or any(len(pair) != 2 for pair in pairs):
        return None
    return [(pair[0], pair[1]) for pair in pairs]


def _written(call: Call) -> list[tuple[object, object]]:
    pairs: list[tuple[object, object]] = []
    for effect in call.effects or ():
        if effect.kind in ("SETITEM", "SETITEMS"):
            pairs.extend(zip(effect.args[::2], effect.args[1::2], strict=True))
    return pairs


def _sequence(call: Call, _name: str) -> object:
    args = call.args if isinstance(call.args, tuple) else ()
    if args and not isinstance(args[0], list | tuple):
        return None
    items = list(args[0]) if args else []  # type: ignore[call-overload]
    for effect in call.effects or ():
        if effect.kind in ("APPEND", "APPENDS", "ADDITEMS"):
            items.extend(effect.args)
    return items


def _namespace(call: Call, name: str) -> object:
    items = Items(name, [])
    for effect in call.effects or ():
        if effect.kind != "BUILD" or not isinstance(effect.args[0], dict):
            return None
        items.pairs.extend(effect.args[0].items())
    return items


def _size(call: Call, _name: str) -> object:
    return size_of(call)


def size_of(value: object) -> object:
    """The tuple that `value` is, or that a call of `torch.Size` was given; else None."""
    if value.__class__ is tuple:  # as it stands in nearly every file
        return value
    if isinstance(value, Call) and isinstance(value.func, Global):
        if value.func.qualified != "torch.Size" or not isinstance(value.args, tuple):
            return None
        value = value.args[0] if len(value.args) == 1 else None
    if isinstance(value, list):
        value = tuple(value)
    return value if isinstance(value, tuple) else None


def _device(call: Call, _name: str) -> object:
    args = call.args
    if not isinstance(args, tuple) or len(args) > 2:
        return None
    if not all(isinstance(arg, str) or sizes((arg,)) for arg in args):
        return None
    return ":".join(str(arg) for arg in args) or None


def _scalar(call: Call, _name: str) -> object:
    """`numpy._core.multiarray.scalar(dtype, bytes)`: one number."""
    if not isinstance(call.args, tuple) or len(call.args) != 2:
        return None
    data = latin1(call.args[1])
    return (
        None if data is None else _numpy_values.scalar(_numpy_values.dtype_code(call.args[0]), data)
    )


def _dtype(call: Call, _name: str) -> object:
    code = _numpy_values.dtype_code(call)
    return _words.Worded(f"numpy {_numpy_values.dtype_name(code)}") if code else None


def latin1(value: object) -> bytes | None:
    """Bytes, also as protocols 0 to 2 spell them: `_codecs.encode(text, "latin1")`."""
    if isinstance(value, Call) and isinstance(value.func, Global):
        args = value.args
        known = value.func.qualified == ENCODE and isinstance(args, tuple)
        if not known or len(args) != 2 or args[1] != "latin1" or not isinstance(args[0], str):  # type: ignore[arg-type,index]
            return None
        try:
            return args[0].encode("latin1")  # type: ignore[index]
        except UnicodeEncodeError:
            return None
    return value if isinstance(value, bytes) else None


def copied(call: Call) -> int:
    """Bytes that the value of `call` keeps for itself although the program spells them once."""
    if not isinstance(call.func, Global) or call.func.name not in _COPYING:
        return 0
    state = call.effects[-1].args[0] if call.effects else ()
    parts = (call.args, state)
    return sum(_spelled(part) for given in parts if isinstance(given, tuple) for part in given)


def _spelled(value: object) -> int:
    if isinstance(value, Call) and isinstance(value.args, tuple) and value.args:
        value = value.args[0]
    return len(value) if isinstance(value, str | bytes | bytearray | memoryview) else 0


def _bytes(call: Call, _name: str) -> object:
    """Bytes in protocols 0 to 2: an `encode`, or `bytes()` where there are none."""
    return b"" if call.args == () else latin1(call)


def holds_storage(root: object) -> bool:
    """Whether a storage is mentioned anywhere below `root`; looks at a million nodes at most."""
    todo, seen = [root], set[int]()
    while todo and len(seen) < _SEARCH_LIMIT:
        value = todo.pop()
        if isinstance(value, Persistent):
            return True
        if id(value) in seen or isinstance(value, _ATOMS):
            continue
        seen.add(id(value))
        todo.extend(_below(value))
    return bool(todo)


def _below(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, Call):
        return [value.func, value.args, value.kwargs, *(value.effects or ())]
    return list(value.args) if isinstance(value, Effect) else []


def _raw(value: object) -> object:
    """Bytes as numpy is given them, in any protocol; a list of objects is none."""
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Call):
        return b"" if value.args == () and _is_bytes(value) else latin1(value)
    return value


def _is_bytes(value: Call) -> bool:
    return isinstance(value.func, Global) and value.func.qualified == "builtins.bytes"


def _worded(make: Callable[..., object]) -> Callable[[Call, str], object]:
    return lambda call, _name: None if not isinstance(call.func, Global) else make(call, latin1)


_COPYING = frozenset({"encode", "scalar", "_reconstruct", "_frombuffer"})
_PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
_BUILDERS: dict[str, Callable[[Call, str], object]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    ENCODE: _bytes,
    "builtins.bytes": _bytes,
    "builtins.dict": _mapping,
    "builtins.set": _sequence,
    "builtins.frozenset": _sequence,
    "builtins.list": _sequence,
    "builtins.tuple": _sequence,
    "collections.deque": _sequence,
    "argparse.Namespace": _namespace,
    "types.SimpleNamespace": _namespace,
    "torch.Size": _size,
    "torch.device": _device,
    "builtins.complex": _worded(_words.complex_call),
    "builtins.slice": _worded(_words.span),
    "builtins.range": _worded(_words.span),
    "decimal.Decimal": _worded(_words.number_call),
    "fractions.Fraction": _worded(_words.number_call),
    "uuid.UUID": _worded(_words.uuid),
    "datetime.timedelta": _worded(_words.duration),
    **{f"datetime.{kind}": _worded(_words.moment) for kind in ("datetime", "date", "time")},
    **{f"pathlib.{kind}": _worded(_words.path) for kind in _PATHS},
    **{f"pathlib._local.{kind}": _worded(_words.path) for kind in _PATHS},
    "numpy.dtype": _dtype,
}
for _core in ("numpy.core", "numpy._core"):
    _BUILDERS[f"{_core}.multiarray.scalar"] = _scalar
    _BUILDERS[f"{_core}.multiarray._reconstruct"] = lambda call, _: _numpy_values.array_of(
        call, _raw
    )
    _BUILDERS[f"{_core}.numeric._frombuffer"] = lambda call, _: _numpy_values.from_buffer(
        call, _raw
    )
