"""TorchScript as an archive carries it: classes in its code, objects of them in its pickles.

Sources: `torch/csrc/jit/serialization` of torch 2.13 (`python_print.cpp` writes the code,
`pickler.cpp` the objects) and `torch/jit/_pickle.py`. The code is looked at line by line, for the
lines that say which attributes of a class are parameters and buffers; none of it is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tensorkeep.errors import Amplified, LimitExceeded
from tensorkeep.facts import Limits
from tensorkeep.formats._values import holds_storage
from tensorkeep.formats.assembled import Sweep, sweep
from tensorkeep.formats.contents import Inert, Items, Lens
from tensorkeep.pickles import Call, Global
from tensorkeep.pickles.sharing import Sizes

_CLASS = re.compile(r"class ([A-Za-z_]\w*)(?:\(([\w., ]*)\))?:")
_NAMES = re.compile(r"  (__parameters__|__buffers__) = \[(.*)\]")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
# What every module has and nobody asks for.
_COMMON = ("training", "_is_full_backward_hook")
# Calls that give a list or a dict its type and change nothing else.
_TAGS_TEXT = "restore_type_tag build_intlist build_tensorlist build_doublelist build_boollist"
_TAGS = frozenset(_TAGS_TEXT.split())


@dataclass(slots=True)
class ScriptClass:
    """A class of the archive's own: its qualified name, and what its state holds."""

    name: str
    module: bool
    parameters: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)


def prefix_of(path: str) -> str:
    """The qualified name that stands before those in a file, "" for one that is no such file.

    `path` is the part below `code/`: "__torch__/torch/nn/modules/linear.py".
    """
    if not path.startswith("__torch__") or not path.endswith(".py"):
        return ""
    return path.removesuffix(".py").replace("/", ".")


def classes_in(source: str, prefix: str) -> Iterator[ScriptClass]:
    """The classes that `source` defines at its top level."""
    current: ScriptClass | None = None
    for line in source.splitlines():
        if line.startswith("class "):
            match = _CLASS.match(line)
            current = None
            if match is not None:
                current = ScriptClass(f"{prefix}.{match[1]}", match[2] == "Module")
                yield current
        elif current is not None and line.startswith("  __"):
            names = _NAMES.match(line)
            if names is not None:
                found = [text.replace('\\"', '"') for text in _TEXT.findall(names[2])]
                setattr(current, names[1].strip("_"), found)


def operators(bytecode: object) -> list[str]:
    """The operators that the functions in `bytecode.pkl` call ("aten::add"), each once."""
    found: dict[str, None] = {}
    todo, seen = [bytecode], set[int]()
    while todo:
        value = todo.pop()
        if not isinstance(value, tuple | list) or id(value) in seen:
            continue
        seen.add(id(value))
        if len(value) == 2 and value[0] == "operators" and isinstance(value[1], tuple | list):
            rows = [row for row in value[1] if isinstance(row, tuple | list) and row]
            found |= dict.fromkeys(row[0] for row in rows if isinstance(row[0], str))
        else:
            todo.extend(value)
    return list(found)


class ScriptState:
    """What `state_dict()` of a scripted module gives, and its other attributes, by their paths.

    Values are as the pickle has them: look at them through `ScriptLens`.
    """

    def __init__(self, classes: Mapping[str, ScriptClass], limits: Limits, written: int) -> None:
        self.tensors: dict[str, object] = {}
        self.attributes: dict[str, object] = {}
        self.collisions: list[str] = []
        self._classes = classes
        self._budget = limits.max_expansion + written
        self._much = limits.max_expansion + limits.max_ratio * written
        self._depth = limits.max_depth

    def read(self, root: object, subject: str) -> None:
        """Walk the modules below `root`, in the order in which torch names them.

        Raises `LimitExceeded` for modules that share or nest each other beyond the limits,
        `Amplified` where a few bytes share a module without end.
        """
        if Sizes(self._inner).of(root) > self._much:
            expected = "modules that stay within Limits.max_expansion when written out"
            raise Amplified(subject, expected=expected, got="more")
        stack: list[tuple[tuple[str, ...], object, frozenset[int]]] = [((), root, frozenset())]
        while stack:
            path, value, above = stack.pop()
            kind, state = self._module(value)
            if kind is None or state is None or id(value) in above:
                self._keep(self.attributes, path, value)
                continue
            self._budget -= 1 + len(path)
            if self._budget < 0 or len(path) > self._depth:
                raise LimitExceeded(subject, expected="modules within the limits", got="more")
            inside = above | {id(value)}
            children = [(*path, name) for name in self._own(path, kind, state)]
            stack.extend((child, state[child[-1]], inside) for child in reversed(children))

    def _inner(self, value: object) -> list[object] | None:
        """The modules in a module; None for anything else."""
        kind, state = self._module(value)
        if kind is None or state is None:
            return None
        return [inner for inner in state.values() if self._module(inner)[0] is not None]

    def _own(self, path: tuple[str, ...], kind: ScriptClass, state: dict[str, object]) -> list[str]:
        """Keep a module's tensors and plain attributes; the names of the modules in it."""
        tensors = [*kind.parameters, *kind.buffers]
        for name in tensors:
            if state.get(name) is not None:
                self._keep(self.tensors, (*path, name), state[name])
        rest = [name for name in state if name not in {*tensors, *_COMMON}]
        modules = [name for name in rest if self._module(state[name])[0] is not None]
        for name in rest:
            self._budget -= 1
            if name not in set(modules) and state[name] is not None:
                self._keep(self.attributes, (*path, name), state[name])
        return modules

    def _keep(self, into: dict[str, object], path: tuple[str, ...], value: object) -> None:
        name = ".".join(path) or "self"
        if name in into:
            self.collisions.append(name)
        into.setdefault(name, value)

    def _module(self, value: object) -> tuple[ScriptClass | None, dict[str, object] | None]:
        """The class of a module that `value` is, and its state if that is plain."""
        if not isinstance(value, Call) or not isinstance(value.func, Global):
            return None, None
        kind = self._classes.get(value.func.qualified)
        if kind is None or not kind.module:
            return None, None
        return kind, plain_state(value)


def plain_state(call: Call) -> dict[str, object] | None:
    """The attributes that BUILD gives an object; None where its class reads them itself."""
    effects = call.effects or []
    if not effects:
        return {}
    state = effects[-1].args[0] if effects[-1].kind == "BUILD" else None
    if len(effects) > 1 or not isinstance(state, dict):
        return None
    return {key: item for key, item in state.items() if isinstance(key, str)}


class ScriptLens:
    """The lens of TorchScript's pickles, over that of torch's tensors."""

    def __init__(self, tensors: Lens, classes: Mapping[str, ScriptClass]) -> None:
        self._tensors = tensors
        self._classes = classes

    def __call__(self, value: object) -> object:
        """Objects of the archive's classes as their attributes, typed lists as lists."""
        while isinstance(value, Call) and _is_tag(value):
            assert isinstance(value.args, tuple)
            value = value.args[0]
        if isinstance(value, Call) and isinstance(value.func, Global):
            name = value.func.qualified
            if name.startswith("__torch__."):
                return self._object(value, name)
        return self._tensors(value)

    def sweep(self) -> Sweep:
        """See `Sweeping`."""
        return sweep(self._tensors)

    def _object(self, call: Call, name: str) -> object:
        state = plain_state(call) if name in self._classes else None
        if state is None or call.kind == "REDUCE":
            unread = "object" if holds_storage(call) else ""
            return Inert(f"object of class {name}", call, unread=unread)
        return Items(name, [*state.items()])


def _is_tag(call: Call) -> bool:
    func = call.func
    if not isinstance(func, Global) or func.module != "torch.jit._pickle":
        return False
    return func.name in _TAGS and isinstance(call.args, tuple) and len(call.args) > 0
