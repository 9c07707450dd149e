"""Opcodes that change an object, and those that steer the machine.

On a node the change is recorded. On a native list, dict, set or bytearray CPython would run no
foreign code, and the change is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from struct import Struct

from tensorkeep.errors import Unsupported
from tensorkeep.pickles._calls import kind_of
from tensorkeep.pickles._containers import set_items
from tensorkeep.pickles._keys import check_key
from tensorkeep.pickles._state import CROSSES, Fault, Handler, Machine, truncated
from tensorkeep.pickles.values import Effect, Node

_UINT64 = Struct("<Q").unpack_from
_HIGHEST_PROTOCOL = 5


def _record(m: Machine, kind: str, target: object, args: tuple[object, ...], offset: int) -> None:
    effect = Effect(kind, target, args, offset)
    m.trace.append(effect)
    if isinstance(target, Node):
        if target.effects is None:
            target.effects = []
        target.effects.append(effect)


def _changed(m: Machine, target: object, offset: int) -> None:
    if m.trace or m.persistents:
        m.changed[id(target)] = offset


def append(m: Machine, pos: int) -> int:
    item = m.stack.pop()
    target = m.stack[-1]
    if isinstance(target, list):
        target.append(item)
        _changed(m, target, pos - 1)
    else:
        _extend(m, "APPEND", target, [item], pos - 1)
    return pos


def appends(m: Machine, pos: int) -> int:
    items = m.pop_mark()
    target = m.stack[-1]
    if items:
        _extend(m, "APPENDS", target, items, pos - 1)
    return pos


def _extend(m: Machine, kind: str, target: object, items: list[object], offset: int) -> None:
    if isinstance(target, list):
        target.extend(items)
        _changed(m, target, offset)
    elif isinstance(target, Node):
        _record(m, kind, target, tuple(items), offset)
    elif isinstance(target, bytearray):
        _refuse_nodes(m, Effect(kind, target, tuple(items), offset), items)
        _native(partial(target.extend, items))  # type: ignore[arg-type]
        _changed(m, target, offset)
    else:
        raise Fault("a list", kind_of(target))


def _refuse_nodes(m: Machine, effect: Effect, numbers: list[object]) -> None:
    """A native container asks such an object for its number: that calls into it."""
    if any(isinstance(number, Node) for number in numbers):
        m.trace.append(effect)
        raise Fault("plain integers", "an object that only running it would give", Unsupported)


def _native(change: Callable[[], None]) -> None:
    try:
        change()
    except (TypeError, ValueError, IndexError, BufferError) as error:
        raise Fault("a change that the object allows", str(error)) from None


def setitem(m: Machine, pos: int) -> int:
    value = m.stack.pop()
    key = m.stack.pop()
    _set(m, "SETITEM", m.stack[-1], [key, value], pos - 1)
    return pos


def setitems(m: Machine, pos: int) -> int:
    items = m.pop_mark()
    target = m.stack[-1]
    if items:
        _set(m, "SETITEMS", target, items, pos - 1)
    return pos


def _set(m: Machine, kind: str, target: object, items: list[object], offset: int) -> None:
    if isinstance(target, dict):
        set_items(m, target, items)
        _changed(m, target, offset)
    elif len(items) % 2:
        raise Fault("as many values as keys", f"{len(items)} items")
    elif isinstance(target, Node):
        _record(m, kind, target, tuple(items), offset)
    elif isinstance(target, list | bytearray):
        _set_positions(m, kind, target, items, offset)
    else:
        raise Fault("a dict or a list", kind_of(target))


def _set_positions(
    m: Machine,
    kind: str,
    target: list[object] | bytearray,
    items: list[object],
    offset: int,
) -> None:
    numbers = items[::2] if isinstance(target, list) else items
    _refuse_nodes(m, Effect(kind, target, tuple(items), offset), numbers)
    for index, value in zip(items[::2], items[1::2], strict=True):
        _native(partial(target.__setitem__, index, value))
    _changed(m, target, offset)


def additems(m: Machine, pos: int) -> int:
    items = m.pop_mark()
    target = m.stack[-1]
    if not items:
        return pos
    if isinstance(target, set):
        for item in items:
            check_key(m, item, target)
            target.add(item)
        _changed(m, target, pos - 1)
    elif isinstance(target, Node):
        _record(m, "ADDITEMS", target, tuple(items), pos - 1)
    else:
        raise Fault("a set", kind_of(target))
    return pos


def build(m: Machine, pos: int) -> int:
    state = m.stack.pop()
    target = m.stack[-1]
    _record(m, "BUILD", target, (state,), pos - 1)
    if not isinstance(target, Node):
        _build_native(target, state)
    return pos


def _build_native(target: object, state: object) -> None:
    """Native objects have neither `__setstate__` nor `__dict__`: all but empty state fails."""
    slots: object = {}
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if isinstance(state, Node) or isinstance(slots, Node):
        raise Fault("a plain state", "a state that only running it would give", Unsupported)
    if state is not None or not isinstance(slots, dict) or slots:
        raise Fault("an object that takes a state", kind_of(target))


def readonly_buffer(m: Machine, pos: int) -> int:
    top = m.stack[-1]
    if isinstance(top, bytearray):
        m.stack[-1] = memoryview(top).toreadonly()
    elif isinstance(top, Node):
        raise Fault("plain bytes", "an object that only running it would give", Unsupported)
    elif not isinstance(top, bytes | memoryview):
        raise Fault("bytes", kind_of(top))
    return pos


def proto(m: Machine, pos: int) -> int:
    version = m.data[pos]
    if version > _HIGHEST_PROTOCOL:
        raise Fault(f"a protocol up to {_HIGHEST_PROTOCOL}", str(version), Unsupported)
    if m.proto_seen:
        m.note("proto-twice", "the protocol is declared more than once", pos - 1)
    elif pos - 1 != m.start:
        m.note("proto-late", "the protocol is declared after other opcodes", pos - 1)
    m.proto_seen = True
    m.proto = version
    return pos + 1


def frame(m: Machine, pos: int) -> int:
    length = _UINT64(m.data, pos)[0]
    end = pos + 8 + length
    if end > m.size:
        raise truncated(f"a frame of {length:,} bytes")
    if m.frame_end >= 0:
        m.note("frame-crosses-value", CROSSES, pos - 1)
    m.frame_end = end
    m.bound = min(m.bound, end)
    return pos + 8


EFFECTS: dict[bytes, tuple[str, Handler]] = {
    b"a": ("APPEND", append),
    b"e": ("APPENDS", appends),
    b"s": ("SETITEM", setitem),
    b"u": ("SETITEMS", setitems),
    b"\x90": ("ADDITEMS", additems),
    b"b": ("BUILD", build),
    b"\x98": ("READONLY_BUFFER", readonly_buffer),
    b"\x80": ("PROTO", proto),
    b"\x95": ("FRAME", frame),
}
