"""Generators that a loader carries: in its sampler, its dataset, a transform, a function's closure.

Nobody tracks the generator that lies three objects deep in a transform, and a run that goes on
without its state is another run. What is found here is saved and put back by its path. Found are
attributes, small containers, closures, partials, and globals that a method or function names.
"""

from __future__ import annotations

import functools
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

Parts = Iterator[tuple[str, object]]
# A list of a million samples is data; transforms come in lists of ten.
_LONGEST = 256
_MOST = 20_000
_LEAVES = (
    *(str, bytes, int, float, complex, type, ModuleType, BuiltinFunctionType),
    *(torch.Tensor, torch.dtype, torch.device, range, set, frozenset),
)


def is_generator(value: object) -> bool:
    """Whether it is a generator of random numbers, of Python's, numpy's or torch's."""
    if isinstance(value, torch.Generator | random.Random):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(
        value, numpy.random.Generator | numpy.random.RandomState
    )


def is_global(value: object) -> bool:
    """Whether it is one of those that a process has of its own, which `randomness` knows."""
    numpy = sys.modules.get("numpy")
    own = [torch.default_generator, getattr(random, "_inst", None)]
    if numpy is not None:
        own.append(numpy.random.mtrand._rand)
    return any(value is each for each in own)


def has_state(generator: object) -> bool:
    """False for those that draw from the operating system."""
    return not isinstance(generator, random.SystemRandom)


def found(roots: Mapping[str, object]) -> dict[str, Any]:
    """The generators in `roots`, nearest first, by the path to each ("dataset.transform.rng")."""
    made: dict[str, Any] = {}
    seen: dict[int, object] = {}
    waiting = deque(roots.items())
    while waiting and len(seen) < _MOST:
        path, value = waiting.popleft()
        if value is None or isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen[id(value)] = value
        if is_generator(value):
            if not is_global(value):
                made[path] = value
            continue
        waiting.extend((f"{path}.{name}", each) for name, each in _parts(value))
    return made


def _parts(value: object) -> Parts:
    if isinstance(value, dict | list | tuple):
        if len(value) <= _LONGEST:
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            yield from ((str(key), each) for key, each in pairs)
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, MethodType):
        yield "__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    else:
        yield from _of_object(value)


def _of_function(function: FunctionType) -> Parts:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from ((f"default{n}", each) for n, each in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    yield from _of_globals(function)


def _of_globals(function: FunctionType) -> Parts:
    for name in _names(function.__code__):
        each = function.__globals__.get(name)
        if is_generator(each):
            yield f"globals.{name}", each


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _of_object(value: object) -> Parts:
    yield from tuple(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)
        if kind.__module__.partition(".")[0] not in ("builtins", "torch", "typing"):
            yield from _of_methods(kind)


def _of_methods(kind: type) -> Parts:
    for method in vars(kind).values():
        inner: Callable[..., Any] | None = getattr(method, "__func__", method)
        if isinstance(inner, FunctionType):
            yield from _of_globals(inner)
