"""The registers of the pickle machine, which every opcode works on."""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Callable

from tensorkeep.errors import BadArgument, Damaged, LimitExceeded, ReadError
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.pickles.values import Call, Effect, Extension, Global, Import, Persistent, Resolve

STEP = 1 << 16  # bytes between two looks at the limits: an opcode is at least a byte


class Fault(Exception):
    """An opcode that CPython refuses, or that costs too much. Never leaves this room."""

    def __init__(
        self,
        expected: str,
        got: str,
        kind: type[ReadError] = Damaged,
        remedy: str = "",
    ) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got
        self.kind = kind
        self.remedy = remedy


class Halt(Exception):
    """STOP was executed, and the byte after it is at `end`."""

    def __init__(self, value: object, end: int) -> None:
        super().__init__()
        self.value = value
        self.end = end


class Machine:
    """Stack, marks, memo and what was recorded.

    `stack` holds what lies above the topmost mark and `below` what each mark hides, so that an
    opcode cannot reach under a mark: an empty list is CPython's fence. `hidden` counts what
    `below` holds. `resume` is where the opcodes go on after the current frame, if an object has
    read bytes of its own behind it. `memo` has the dense indexes that every honest writer uses
    (8 bytes for each instead of a hundred), `sparse` the others.
    """

    __slots__ = (
        "anomalies",
        "below",
        "bound",
        "changed",
        "collisions",
        "constants",
        "data",
        "encoding",
        "extensions",
        "frame_end",
        "globals",
        "hidden",
        "key_budget",
        "keys_counted",
        "limits",
        "memo",
        "persistents",
        "proto",
        "proto_seen",
        "resolve",
        "resolved",
        "resume",
        "size",
        "sparse",
        "stack",
        "start",
        "trace",
    )

    def __init__(self, data: bytes, start: int, limits: Limits, encoding: str) -> None:
        self.data = data
        self.start = start
        self.size = len(data)
        self.limits = limits
        self.encoding = encoding
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        self.hidden = 0
        self.memo: list[object] = []
        self.sparse: dict[int, object] = {}
        self.proto = 0
        self.proto_seen = False
        self.frame_end = -1
        self.resume = -1
        self.resolve: Resolve | None = None
        self.bound = start
        self.globals: dict[tuple[str, str, bool], Global] = {}
        self.extensions: dict[int, Extension] = {}
        self.changed: dict[int, int] = {}
        self.trace: list[Import | Call | Effect] = []
        self.persistents: list[Persistent] = []
        self.resolved: list[object] = []
        self.anomalies: list[Anomaly] = []
        self.constants: list[tuple[int, bytes | str]] = []
        self.key_budget = limits.max_expansion + self.size
        self.keys_counted = 0
        self.collisions: array[int] | None = None

    def pop_mark(self) -> list[object]:
        """What lies above the topmost mark; the mark is gone. `Fault` without a mark."""
        if not self.below:
            raise no_mark()
        items = self.stack
        self.stack = under = self.below.pop()
        self.hidden -= len(under) + 1
        return items

    def put(self, index: int, value: object) -> None:
        """Memoize under any index >= 0."""
        memo = self.memo
        if index < len(memo):
            memo[index] = value
        elif index > len(memo):
            self.sparse[index] = value
            if index >= _FAR:
                self.note("memo-index", f"memo index {index}: {FAR}", None)
        else:
            memo.append(value)
            self._gather()

    def _gather(self) -> None:
        # MEMOIZE counts the entries, so every index must live in one place only.
        memo, sparse = self.memo, self.sparse
        while sparse and len(memo) in sparse:
            memo.append(sparse.pop(len(memo)))

    def get(self, index: int) -> object:
        """The memo's entry, or `Fault`."""
        if 0 <= index < len(self.memo):
            return self.memo[index]
        if index in self.sparse:
            return self.sparse[index]
        raise Fault(f"a memo entry {index}", "none")

    def line(self, pos: int) -> int:
        """Where the newline is that ends the text beginning at `pos`, or `Fault`."""
        end = self.data.find(b"\n", pos)
        if end < 0:
            raise truncated("a newline")
        return end

    def note(self, kind: str, what: str, offset: int | None) -> None:
        """Report an anomaly, once per kind: a hostile file could hold millions."""
        if all(anomaly.kind != kind for anomaly in self.anomalies):
            self.anomalies.append(Anomaly(kind, what, offset=offset))

    def pause(self, pos: int) -> int:
        """Between two opcodes: check limits and frames, say how far to run, and from where."""
        if 0 <= self.frame_end <= pos:
            if pos > self.frame_end:
                self.note("frame-crosses-value", CROSSES, self.frame_end)
            pos = max(pos, self.resume)
            self.frame_end = self.resume = -1
        if pos >= self.size:
            raise truncated("STOP")
        self._check(pos)
        self.bound = min(self.size, pos + STEP)
        if self.frame_end >= 0:
            self.bound = min(self.bound, self.frame_end)
        return pos

    def _check(self, pos: int) -> None:
        limits = self.limits
        live = self.hidden + len(self.stack)
        if live > limits.max_stack:
            raise too_much("entries on the stack", limits.max_stack, live)
        live = len(self.memo) + len(self.sparse)
        if live > limits.max_memo:
            raise too_much("memo entries", limits.max_memo, live)
        if pos - self.start > limits.max_pickle_bytes:
            raise too_much("bytes of pickle", limits.max_pickle_bytes, pos - self.start)


# Honest writers count from 0: a memo with a gap at this height would hold as many entries.
_FAR = 1 << 24
FAR = "CPython makes room for twice as many entries at 8 bytes each"
CROSSES = (
    "a value crosses the end of its frame: CPython reads it one way from memory and another way "
    "from a file"
)
Handler = Callable[[Machine, int], int]


ENDED = "the end of the data"


def truncated(wanted: str) -> Fault:
    """The fault of data that end before `wanted`."""
    return Fault(wanted, ENDED)


def no_mark() -> Fault:
    """The fault of an opcode that needs a mark, and there is none."""
    return Fault("a mark", "none")


def too_much(what: str, limit: int, got: int) -> Fault:
    """The fault of a limit passed."""
    return Fault(f"at most {limit:,} {what}", f"{got:,}", LimitExceeded)


def check_encoding(encoding: str) -> None:
    """`BadArgument` unless 8-bit strings can be decoded by `encoding`."""
    if encoding == "bytes":
        return
    try:
        text = codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError, UnicodeError):
        text = False
    if not text:
        raise BadArgument("encoding", expected='a text encoding or "bytes"', got=encoding)
