"""CPython's own unpickler beside the machine, both brought to a form that can be compared.

Nothing foreign runs: `find_class` returns a fresh recorder class, which notes what is done to it.
Recorders are classes themselves, so that every opcode that wants a class takes them.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import pytest

from tensorkeep import pickles
from tensorkeep.pickles import Call, Effect, Extension, Global, Node, Persistent


class Recorder(type):
    """The class of recorder classes: what an opcode does to one is noted in `effects`."""

    def __call__(cls, *args, **kwargs):
        return recorder(_flat("call", cls, args, kwargs))

    def __setitem__(cls, key, value):
        cls.effects.append(("setitem", key, value))

    @property
    def extend(cls):
        return lambda items: cls.effects.append(("extend", items))

    @property
    def add(cls):
        return lambda item: cls.effects.append(("add", item))

    @property
    def __setstate__(cls):
        return lambda state: cls.effects.append(("setstate", state))


def _new(cls, *args, **kwargs):
    return recorder(_flat("new", cls, args, kwargs))


def recorder(recipe):
    return type.__call__(Recorder, "R", (), {"recipe": recipe, "effects": [], "__new__": _new})


class Real(pickle.Unpickler):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.found = {}

    def find_class(self, module, name):
        return self.found.setdefault((module, name), recorder(("global", module, name)))

    def persistent_load(self, pid):
        return recorder(("persistent", pid))


@dataclass
class Outcome:
    value: Any = None
    error: BaseException | None = None
    end: int = 0
    program: pickles.Program | None = None


class Oracle:
    """`real` and `ours` give outcomes whose values compare with `==`."""

    def real(self, data: bytes, *, encoding="utf-8", from_memory=True) -> Outcome:
        file = io.BytesIO(data)
        if from_memory:  # with a peek that shows everything, it reads as `pickle.loads` does
            assert len(data) < 100_000
            file = io.BufferedReader(file, 1 << 17)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = Real(file, encoding=encoding).load()
        except Exception as error:  # whatever CPython finds wrong
            return Outcome(error=error)
        return Outcome(canonical(value), end=file.tell())

    def ours(self, data: bytes, *, encoding="utf-8") -> Outcome:
        program = pickles.run(data, encoding=encoding)
        value = None if program.error else canonical(program.value)
        return Outcome(value, program.error, program.end, program)

    def same(self, data: bytes, *, encoding="utf-8") -> bool:
        """Assert that both agree on `data`; whether they accept it."""
        real = self.real(data, encoding=encoding)
        if real.error:
            program = pickles.run(data, encoding=encoding)
            assert program.error or depends_on_objects(program), (data, real.error)
            return False
        ours = self.ours(data, encoding=encoding)
        assert ours.error is None, (data, ours.error)
        assert real.value == ours.value, data
        assert real.end == ours.end, data
        return True


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


def depends_on_objects(program) -> bool:
    """Whether the file's correctness depends on what its own calls would return."""
    return (
        any(
            isinstance(pickles_import.target, Extension)
            for pickles_import in program.trace
            if isinstance(pickles_import, pickles.Import)
        )
        or any(
            isinstance(step, Call) and (isinstance(step.args, Node) or odd_keywords(step.kwargs))
            for step in program.trace
        )
        or any(anomaly.kind == "computed-name" for anomaly in program.anomalies)
    )


def odd_keywords(kwargs) -> bool:
    return isinstance(kwargs, Node) or bool(kwargs and any(type(k) is not str for k in kwargs))


def canonical(value) -> Any:
    """Nested tuples that are equal if and only if two graphs are, sharing and cycles included."""
    return _Walk().visit(value)


class _Walk:
    def __init__(self, sets: tuple[int, ...] = ()) -> None:
        self.sets = sets  # the sets that are open: an object in one may hold it
        self.seen = {number: -1 - place for place, number in enumerate(sets)}
        self.keep: list[Any] = []

    def visit(self, value) -> Any:
        kind = type(value)
        if kind is float:
            return ("float", struct.pack(">d", value))
        if value is None or value == () or kind in (bool, int, str, bytes):
            return (kind.__name__, value)
        if id(value) in self.seen:
            return ("seen", self.seen[id(value)])
        self.seen[id(value)] = len(self.seen)
        self.keep.append(value)
        return self._parts(value, kind)

    def _parts(self, value, kind) -> Any:
        if kind in (list, tuple):
            return (kind.__name__, [self.visit(item) for item in value])
        if kind is dict:
            return ("dict", [(self.visit(k), self.visit(v)) for k, v in value.items()])
        if kind in (set, frozenset):
            return (kind.__name__, self._members(value))
        if kind in (bytearray, memoryview):
            return (kind.__name__, bytes(value))
        recipe, effects = (
            (value.recipe, value.effects) if kind is Recorder else (_recipe(value), _effects(value))
        )
        return ("node", [self.visit(part) for part in recipe], [self.visit(e) for e in effects])

    def _members(self, value) -> list[str]:
        """Sorted, since their order says nothing: each described for itself alone."""
        sets = (*self.sets, id(value))
        return sorted(repr(_Walk(sets).visit(item)) for item in value)


def _recipe(node) -> tuple:
    if isinstance(node, Global):
        return ("global", *node.written)
    if isinstance(node, Persistent):
        return ("persistent", node.pid)
    if isinstance(node, Extension):
        return ("extension", node.code)
    assert isinstance(node, Call)
    bare = node.kind in ("INST", "OBJ") and not node.args  # CPython then calls __new__ alone
    how = "new" if bare or node.kind.startswith("NEWOBJ") else "call"
    return _flat(how, node.func, node.args, node.kwargs)


def _flat(how, func, args, kwargs) -> tuple:
    # Calling a Python function copies the tuple and the dict: their identity says nothing.
    named = [part for pair in (kwargs or {}).items() for part in pair]
    return (how, func, len(args), *args, *named)


def _effects(node) -> list[tuple]:
    return [part for effect in node.effects or [] for part in _effect(effect)]


def _effect(effect: Effect) -> list[tuple]:
    args = effect.args
    if effect.kind == "BUILD":
        return [("setstate", args[0])]
    if effect.kind.startswith("SETITEM"):
        return [("setitem", args[i], args[i + 1]) for i in range(0, len(args), 2)]
    if effect.kind == "ADDITEMS":
        return [("add", item) for item in args]
    return [("extend", list(args))]
