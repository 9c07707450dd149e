"""State as JSON and back: what objects remember, without pickle.

Numbers, text, None, lists and dicts with text for keys are themselves. Everything else is an
object whose key "$" says what it is: `{"$": "tuple", "of": [1, 2]}`. What this room does not know
(tensors, arrays, dtypes) the caller writes and reads: see `Writer` and `Reader`.
"""

from __future__ import annotations

import base64
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from tensorkeep.errors import Damaged, Unwritable, escape

TAG = "$"
Json = Any
# What a value is called: the way to it from the tracked object ("scheduler.lr_lambdas[0]").
Writer = Callable[[object, str], "Json | None"]
Reader = Callable[[Mapping[str, Json]], object]

_DEEPEST = 200
_LARGEST = 1 << 63
_FACTORIES = {None: "", list: "list", dict: "dict", set: "set", int: "int", float: "float"}
_SCALARS = (bool, str, type(None))


def encoded(value: object, path: str, other: Writer) -> Json:
    """`value` as JSON. Raises `Unwritable`, which names the path and the type in the way.

    `other`: gives the JSON object of a value that is not of Python's own plain types, or None.
    """
    return _Encoder(other).of(value, path, 0)


class _Encoder:
    def __init__(self, other: Writer) -> None:
        self._other = other
        self._inside: set[int] = set()

    def of(self, value: object, path: str, depth: int) -> Json:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is int or kind is float:
            return _number(value)
        made = self._other(value, path)
        if made is not None:
            return made
        if depth > _DEEPEST or id(value) in self._inside:
            what = "itself" if depth <= _DEEPEST else f"more than {_DEEPEST} containers"
            raise Unwritable(path, expected="plain state", got=f"a {kind.__name__} inside {what}")
        self._inside.add(id(value))
        try:
            return self._container(value, path, depth + 1)
        finally:
            self._inside.discard(id(value))

    def _container(self, value: Any, path: str, depth: int) -> Json:  # noqa: ANN401
        kind = type(value)
        if kind is list:
            return self._items(value, path, depth)
        if kind is dict:
            return self._dict(value, path, depth)
        if kind in (tuple, deque):
            more = {"maxlen": value.maxlen} if kind is deque else {}
            return {TAG: kind.__name__, "of": self._items(value, path, depth), **more}
        if kind in (set, frozenset):
            # In an order of its own, so that equal states are equal files.
            items = sorted(self._items(value, path, depth), key=repr)
            return {TAG: kind.__name__, "of": items}
        if kind in (OrderedDict, Counter):
            return {TAG: kind.__name__, "of": self._pairs(value, path, depth)}
        if kind is defaultdict and value.default_factory in _FACTORIES:
            name = _FACTORIES[value.default_factory]
            return {TAG: "defaultdict", "factory": name, "of": self._pairs(value, path, depth)}
        return _leaf(value, path)

    def _items(self, value: Any, path: str, depth: int) -> list[Json]:  # noqa: ANN401
        return [self.of(each, f"{path}[{at}]", depth) for at, each in enumerate(value)]

    def _dict(self, value: dict[object, object], path: str, depth: int) -> Json:
        if all(type(key) is str for key in value) and TAG not in value:
            return {key: self.of(each, f"{path}.{key}", depth) for key, each in value.items()}
        return {TAG: "dict", "of": self._pairs(value, path, depth)}

    def _pairs(self, value: Any, path: str, depth: int) -> list[list[Json]]:  # noqa: ANN401
        return [
            [self.of(key, f"a key of {path}", depth), self.of(each, f"{path}.{key}", depth)]
            for key, each in value.items()
        ]


def _number(value: Any) -> Json:  # noqa: ANN401
    if type(value) is int:
        return value if abs(value) < _LARGEST else {TAG: "int", "hex": hex(value)}
    return value if value - value == 0 else {TAG: "float", "is": repr(value)}


def _leaf(value: Any, path: str) -> Json:  # noqa: ANN401
    kind = type(value)
    if kind in (bytes, bytearray):
        return {TAG: kind.__name__, "base64": base64.b64encode(value).decode("ascii")}
    if kind is complex:
        return {TAG: "complex", "of": [_number(value.real), _number(value.imag)]}
    if kind is range:
        return {TAG: "range", "of": [value.start, value.stop, value.step]}
    if isinstance(value, PurePath):
        return {TAG: "path", "is": str(value)}
    raise Unwritable(
        path,
        expected="tensors, numbers, text and containers of them",
        got=_called(value),
        remedy="Leave it out of the state, or track an object whose state_dict() holds only these.",
    )


def _called(value: object) -> str:
    kind = type(value)
    name = getattr(value, "__qualname__", "")
    text = f"a {kind.__module__}.{kind.__qualname__}".replace(" builtins.", " ")
    return f"{text} ({escape(name)})" if isinstance(name, str) and name else text


def decoded(value: Json, other: Reader, subject: str) -> Any:  # noqa: ANN401
    """What `encoded` was given. Raises `Damaged` for what it never writes.

    `other`: makes the values of tags that are not of Python's own plain types.
    """
    try:
        return _decoded(value, other)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Damaged(subject, expected="state as tensorkeep writes it", got=repr(error)) from error


def _decoded(value: Json, other: Reader) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_decoded(each, other) for each in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(TAG)
    if tag is None:
        return {key: _decoded(each, other) for key, each in value.items()}
    make = _MAKERS.get(tag)
    return make(value, other) if make is not None else other(value)


def _several(value: Mapping[str, Json], other: Reader) -> list[Any]:
    return [_decoded(each, other) for each in value["of"]]


def _mapped(value: Mapping[str, Json], other: Reader) -> list[tuple[Any, Any]]:
    return [(_decoded(key, other), _decoded(each, other)) for key, each in value["of"]]


def _factory(value: Mapping[str, Json]) -> Any:  # noqa: ANN401
    return next(kind for kind, name in _FACTORIES.items() if name == value["factory"])


_MAKERS: dict[str, Callable[[Mapping[str, Json], Reader], Any]] = {
    "tuple": lambda value, other: tuple(_several(value, other)),
    "set": lambda value, other: set(_several(value, other)),
    "frozenset": lambda value, other: frozenset(_several(value, other)),
    "deque": lambda value, other: deque(_several(value, other), value["maxlen"]),
    "dict": lambda value, other: dict(_mapped(value, other)),
    "OrderedDict": lambda value, other: OrderedDict(_mapped(value, other)),
    "Counter": lambda value, other: Counter(dict(_mapped(value, other))),
    "defaultdict": lambda value, other: defaultdict(_factory(value), _mapped(value, other)),
    "int": lambda value, other: int(value["hex"], 16),
    "float": lambda value, other: float(value["is"]),
    "complex": lambda value, other: complex(*_several(value, other)),
    "range": lambda value, other: range(*value["of"]),
    "bytes": lambda value, other: base64.b64decode(value["base64"], validate=True),
    "bytearray": lambda value, other: bytearray(base64.b64decode(value["base64"], validate=True)),
    "path": lambda value, other: PurePath(value["is"]),
}
