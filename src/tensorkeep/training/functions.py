"""What a function computes with, as a digest: a lambda is never written, but a changed one is seen.

Its bytecode, constants, names, defaults, the plain values it closes over, and those global values
that it names. Nothing is called. Bytecode is that of one version of Python; digests of another
version say nothing.
"""

from __future__ import annotations

import functools
import hashlib
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

_PLAIN = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis))
# Functions that call functions that call functions: who goes deeper is named and not followed.
_DEEPEST = 8


def digest(function: object) -> str:
    """`sha256:...`; equal for what was written the same."""
    return "sha256:" + hashlib.sha256(repr(_of(function, 0, ())).encode()).hexdigest()


def _of(value: Any, depth: int, inside: tuple[int, ...]) -> object:  # noqa: ANN401
    """A value as text, numbers and tuples; what is none of these by its type."""
    if isinstance(value, _PLAIN):
        return type(value).__name__, repr(value)
    if depth > _DEEPEST or id(value) in inside:
        return "...", _name(value)
    within = depth + 1, (*inside, id(value))
    if isinstance(value, tuple | list):
        return type(value).__name__, tuple(_of(each, *within) for each in value)
    if isinstance(value, set | frozenset):
        return type(value).__name__, tuple(sorted(repr(_of(each, *within)) for each in value))
    if isinstance(value, dict):
        return "dict", tuple((_of(k, *within), _of(v, *within)) for k, v in value.items())
    if isinstance(value, CodeType):
        return _code(value, *within)
    return _callable(value, *within)


def _callable(value: Any, depth: int, inside: tuple[int, ...]) -> object:  # noqa: ANN401
    if isinstance(value, FunctionType):
        return _function(value, depth, inside)
    if isinstance(value, functools.partial):
        parts = value.func, value.args, value.keywords
        return "partial", tuple(_of(each, depth, inside) for each in parts)
    if isinstance(value, MethodType):
        return "method", _of(value.__func__, depth, inside), _of(value.__self__, depth, inside)
    classes = type(value).__mro__
    call = next((vars(each)["__call__"] for each in classes if "__call__" in vars(each)), None)
    if isinstance(call, FunctionType):
        # What it remembers is state: torch saves it, and it may change from call to call.
        return "object", _of(call, depth, inside)
    return "other", _name(value)


def _name(value: object) -> str:
    named = value if isinstance(value, type | FunctionType | BuiltinFunctionType) else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _function(value: FunctionType, depth: int, inside: tuple[int, ...]) -> object:
    cells = []
    for cell in value.__closure__ or ():
        try:
            cells.append(_of(cell.cell_contents, depth, inside))
        except ValueError:  # not filled yet
            cells.append("empty")
    named = {name: value.__globals__[name] for name in _names(value) if name in value.__globals__}
    parts = value.__code__, value.__defaults__, value.__kwdefaults__, named
    return "function", tuple(_of(each, depth, inside) for each in parts), tuple(cells)


def _names(value: FunctionType) -> list[str]:
    found: set[str] = set()
    waiting = [value.__code__]
    while waiting:
        code = waiting.pop()
        found.update(code.co_names)
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
    return sorted(found)


def _code(code: CodeType, depth: int, inside: tuple[int, ...]) -> object:
    counts = code.co_argcount, code.co_kwonlyargcount, code.co_flags
    constants = tuple(_of(each, depth, inside) for each in code.co_consts)
    return "code", counts, code.co_code, code.co_names, code.co_freevars, constants
