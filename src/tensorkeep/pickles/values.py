"""The inert values of a pickle program, and the record of what it would have done.

Atoms and plain containers are native Python objects. Everything that CPython would have got by
importing or calling is a *node*: it stands for the object, and knows where in the bytes it came
from. Nodes are equal only to themselves, because comparing what they hold could recurse as deep
as the file likes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tensorkeep.errors import TensorkeepError
from tensorkeep.facts import Anomaly

# What writes a value as a line of text: `describe` puts itself here, as it knows these classes
# and they cannot import it.
_writer: list[Callable[[object], str]] = [object.__repr__]


def write_with(writer: Callable[[object], str]) -> None:
    """Let `writer` make the `repr` of nodes, effects and imports."""
    _writer[0] = writer


class Node:
    """An object that only running the pickle would make.

    `offset` is the position of the opcode that makes it, `effects` what later opcodes change in
    it, in order (None while nothing does).
    """

    __slots__ = ("effects", "offset")

    effects: list[Effect] | None
    offset: int

    def __repr__(self) -> str:
        return _writer[0](self)


class Global(Node):
    """A name that the pickle imports; one object for each resolved name of a program.

    `module` and `name` are resolved: where CPython maps Python 2's names (protocol < 3), mapped.
    `written` is the pair as the file has it (at `offset`, its first occurrence). `dotted` says
    that CPython follows the dots in `name` one attribute at a time (protocol >= 4); where it is
    False a dot is a character of the name. `computed` says that the file computes the name with
    a call: then the text is "<computed>", and `operands` holds what the name is made of.
    """

    __slots__ = ("dotted", "module", "name", "operands", "written")

    def __init__(
        self,
        module: str,
        name: str,
        offset: int,
        *,
        written: tuple[str, str] | None = None,
        dotted: bool = False,
        operands: tuple[object, object] | None = None,
    ) -> None:
        self.module = module
        self.name = name
        self.offset = offset
        self.written = written or (module, name)
        self.dotted = dotted
        self.operands = operands
        self.effects = None

    @property
    def qualified(self) -> str:
        """The resolved name with its module in front."""
        return f"{self.module}.{self.name}"

    @property
    def computed(self) -> bool:
        """Whether only running the pickle would tell the name."""
        return self.operands is not None


class Call(Node):
    """What calling `func` would return.

    `kind` is the opcode's name: REDUCE, INST and OBJ call `func(*args)`, NEWOBJ and NEWOBJ_EX
    call `func.__new__(func, *args, **kwargs)`. `args` is a tuple, or a node where the file gives
    an opaque object; `kwargs` a dict, a node, or None for every other opcode.
    """

    __slots__ = ("args", "func", "kind", "kwargs")

    def __init__(
        self,
        kind: str,
        func: Node,
        args: tuple[object, ...] | Node,
        kwargs: dict[object, object] | Node | None,
        offset: int,
    ) -> None:
        self.kind = kind
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.offset = offset
        self.effects = None


class Persistent(Node):
    """What the loader's `persistent_load(pid)` would return."""

    __slots__ = ("pid",)

    def __init__(self, pid: object, offset: int) -> None:
        self.pid = pid
        self.offset = offset
        self.effects = None


class Extension(Node):
    """What the loading process has registered under `code` in copyreg's extension registry."""

    __slots__ = ("code",)

    def __init__(self, code: int, offset: int) -> None:
        self.code = code
        self.offset = offset
        self.effects = None


class Effect:
    """A change that an opcode would make to `target`.

    `args` by `kind`: BUILD `(state,)`; APPEND, APPENDS and ADDITEMS the items; SETITEM and
    SETITEMS `k0, v0, k1, v1, ...`.
    """

    __slots__ = ("args", "kind", "offset", "target")

    def __init__(self, kind: str, target: object, args: tuple[object, ...], offset: int) -> None:
        self.kind = kind
        self.target = target
        self.args = args
        self.offset = offset

    def __repr__(self) -> str:
        return _writer[0](self)


class Import:
    """One occurrence of an opcode that imports; `opcode` is its name."""

    __slots__ = ("offset", "opcode", "target")

    def __init__(self, target: Global | Extension, opcode: str, offset: int) -> None:
        self.target = target
        self.opcode = opcode
        self.offset = offset

    def __repr__(self) -> str:
        return _writer[0](self)


# Given a call whose state was just set and a position: how far its object reads from there by
# itself, as joblib's arrays do. It may raise `ReadError`.
Reads = Callable[[Call, int], int]
# What a persistent id stands for where the loader is known, or None.
Resolve = Callable[[object], object]


@dataclass(slots=True, eq=False)
class Program:
    """What one pickle says. Offsets are positions in the bytes that were given.

    `start` and `end` enclose the program, STOP included; where `error` is set, `end` is the
    offset of the opcode that failed, `value` is None, and the rest holds what CPython would have
    done before it. `trace` holds imports, calls and effects in the order of execution.
    `opcodes` counts those executed, `used` has their names. Effects that are plain data (an item
    appended to a list, set in a dict, added to a set) have happened and are not listed.

    `changed` keeps, by `id()`, the offset of the last such change of each native container that
    changed after the first import or persistent id. A call whose arguments hold a container
    changed after the call's own offset was given something else than what is there now.

    `resolved` are the persistent ids whose answer the format knows: the value has the answer.

    `constants` are the bytes, and the texts that may be base 64 or
    hexadecimal, in which another pickle could
    lie, each with the position where it begins.

    `cut` says that the data ended before the program did. A reader that takes whole frames from
    a file (Python's own, not C's) stands at `frame_end` or `end` after the program, whichever is
    further.
    """

    start: int
    end: int = 0
    value: object = field(default=None, repr=False)
    protocol: int = 0
    opcodes: int = 0
    used: frozenset[str] = frozenset()
    trace: list[Import | Call | Effect] = field(default_factory=list, repr=False)
    persistents: list[Persistent] = field(default_factory=list, repr=False)
    anomalies: list[Anomaly] = field(default_factory=list)
    changed: dict[int, int] = field(default_factory=dict, repr=False)
    error: TensorkeepError | None = None
    constants: list[tuple[int, bytes | str]] = field(default_factory=list, repr=False)
    cut: bool = False
    frame_end: int = 0
    resolved: list[object] = field(default_factory=list, repr=False)

    def calls_of(self, wanted: Callable[[Global], bool]) -> list[Call]:
        """The calls of the names that are `wanted`, in order; it is asked once for each name."""
        calls = [event for event in self.trace if type(event) is Call]
        names = {func for func in {call.func for call in calls} if isinstance(func, Global)}
        found = {name for name in names if wanted(name)}
        return [call for call in calls if call.func in found] if found else []
