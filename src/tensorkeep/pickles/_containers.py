"""Opcodes of the stack, the memo and the plain containers."""

from __future__ import annotations

from struct import Struct

from tensorkeep.pickles._keys import SHORT, check_key
from tensorkeep.pickles._state import Fault, Halt, Handler, Machine
from tensorkeep.pickles._text import integer

_UINT32 = Struct("<I").unpack_from
_MAX_INDEX = (1 << 63) - 1


def stop(m: Machine, pos: int) -> int:
    raise Halt(m.stack.pop(), pos)


def mark(m: Machine, pos: int) -> int:
    stack = m.stack
    m.hidden += len(stack) + 1
    m.below.append(stack)
    m.stack = []
    return pos


def pop(m: Machine, pos: int) -> int:
    if m.stack or not m.below:
        m.stack.pop()
    else:
        m.pop_mark()
    return pos


def pop_mark(m: Machine, pos: int) -> int:
    m.pop_mark()
    return pos


def dup(m: Machine, pos: int) -> int:
    m.stack.append(m.stack[-1])
    return pos


def binput(m: Machine, pos: int) -> int:
    index = m.data[pos]
    memo = m.memo
    if index == len(memo) and not m.sparse:
        memo.append(m.stack[-1])
    else:
        m.put(index, m.stack[-1])
    return pos + 1


def long_binput(m: Machine, pos: int) -> int:
    index = _UINT32(m.data, pos)[0]
    memo = m.memo
    if index == len(memo) and not m.sparse:
        memo.append(m.stack[-1])
    else:
        m.put(index, m.stack[-1])
    return pos + 4


def memoize(m: Machine, pos: int) -> int:
    # The index is the number of entries, not one more than the highest: after a PUT of an
    # index out of turn this overwrites, as CPython does.
    if m.sparse:
        m.put(len(m.memo) + len(m.sparse), m.stack[-1])
    else:
        m.memo.append(m.stack[-1])
    return pos


def put(m: Machine, pos: int) -> int:
    end = m.line(pos)
    value = m.stack[-1]
    index = integer(_index_text(m, pos, end), 10)
    if not 0 <= index <= _MAX_INDEX:
        raise Fault("a memo index of at least 0", str(index)[:40])
    m.put(index, value)
    return end + 1


def binget(m: Machine, pos: int) -> int:
    index = m.data[pos]
    memo = m.memo
    m.stack.append(memo[index] if index < len(memo) else m.get(index))
    return pos + 1


def long_binget(m: Machine, pos: int) -> int:
    index = _UINT32(m.data, pos)[0]
    memo = m.memo
    m.stack.append(memo[index] if index < len(memo) else m.get(index))
    return pos + 4


def get(m: Machine, pos: int) -> int:
    end = m.line(pos)
    m.stack.append(m.get(integer(_index_text(m, pos, end), 10)))
    return end + 1


def _index_text(m: Machine, pos: int, end: int) -> bytes:
    if end == pos:
        raise Fault("a memo index", "an empty line")
    return m.data[pos:end]


def empty_tuple(m: Machine, pos: int) -> int:
    m.stack.append(())
    return pos


def tuple1(m: Machine, pos: int) -> int:
    m.stack[-1] = (m.stack[-1],)
    return pos


def tuple2(m: Machine, pos: int) -> int:
    stack = m.stack
    last = stack.pop()
    stack[-1] = (stack[-1], last)
    return pos


def tuple3(m: Machine, pos: int) -> int:
    stack = m.stack
    last = stack.pop()
    middle = stack.pop()
    stack[-1] = (stack[-1], middle, last)
    return pos


def tuple_(m: Machine, pos: int) -> int:
    items = m.stack
    m.stack = under = m.below.pop()
    m.hidden -= len(under) + 1
    under.append(tuple(items))
    return pos


def empty_list(m: Machine, pos: int) -> int:
    m.stack.append([])
    return pos


def list_(m: Machine, pos: int) -> int:
    items = m.pop_mark()
    m.stack.append(items)
    return pos


def empty_dict(m: Machine, pos: int) -> int:
    m.stack.append({})
    return pos


def dict_(m: Machine, pos: int) -> int:
    items = m.pop_mark()
    made: dict[object, object] = {}
    set_items(m, made, items)
    m.stack.append(made)
    return pos


def set_items(m: Machine, target: dict[object, object], items: list[object]) -> None:
    """`target[k] = v` for each pair in `items`."""
    if len(items) % 2:
        raise Fault("as many values as keys", f"{len(items)} items")
    pairs = iter(items)
    for key, value in zip(pairs, pairs, strict=True):
        if key.__class__ is not str or len(key) > SHORT:
            check_key(m, key, target)
        target[key] = value


def empty_set(m: Machine, pos: int) -> int:
    m.stack.append(set())
    return pos


def frozenset_(m: Machine, pos: int) -> int:
    items = m.pop_mark()
    for item in items:
        check_key(m, item, items)
    m.stack.append(frozenset(items))
    return pos


CONTAINERS: dict[bytes, tuple[str, Handler]] = {
    b".": ("STOP", stop),
    b"(": ("MARK", mark),
    b"0": ("POP", pop),
    b"1": ("POP_MARK", pop_mark),
    b"2": ("DUP", dup),
    b"q": ("BINPUT", binput),
    b"r": ("LONG_BINPUT", long_binput),
    b"p": ("PUT", put),
    b"\x94": ("MEMOIZE", memoize),
    b"h": ("BINGET", binget),
    b"j": ("LONG_BINGET", long_binget),
    b"g": ("GET", get),
    b")": ("EMPTY_TUPLE", empty_tuple),
    b"\x85": ("TUPLE1", tuple1),
    b"\x86": ("TUPLE2", tuple2),
    b"\x87": ("TUPLE3", tuple3),
    b"t": ("TUPLE", tuple_),
    b"]": ("EMPTY_LIST", empty_list),
    b"l": ("LIST", list_),
    b"}": ("EMPTY_DICT", empty_dict),
    b"d": ("DICT", dict_),
    b"\x8f": ("EMPTY_SET", empty_set),
    b"\x91": ("FROZENSET", frozenset_),
}
