"""What may become a dict key or a set member.

CPython hashes and compares keys recursively in C: a tuple nested deep enough kills the process,
one that shares its parts takes exponential time, and equal hashes make a dict quadratic. Every
key that is not a small atom is walked here first, without recursion and against a budget.
"""

from __future__ import annotations

from array import array
from collections.abc import Sized

from tensorkeep.errors import Amplified, LimitExceeded
from tensorkeep.pickles._state import Fault, Machine
from tensorkeep.pickles.sharing import MOST
from tensorkeep.pickles.values import Node

MAX_DEPTH = 64
SHORT = 1024  # characters; comparing two longer equal strings is charged for
_PLAIN_INT = (1 << 61) - 1  # below this an int is its own hash, so that no two collide
_BUCKETS = 1 << 16
_FREE_COLLISIONS = 64
_ATOMS = (float, bool, Node, type(None))
Key = tuple[object, ...] | frozenset[object]
_DISHONEST = "No honest writer makes such keys."


def check_key(machine: Machine, key: object, holder: Sized) -> None:
    """`Fault` unless `key` can be hashed, cheaply, and does not pile up in `holder`."""
    kind = key.__class__
    if kind is str or kind is bytes:
        if len(key) > SHORT:  # type: ignore[arg-type]
            _charge(machine, len(key) // 64)  # type: ignore[arg-type]
    elif kind is int:
        if not -_PLAIN_INT < key < _PLAIN_INT:  # type: ignore[operator]
            _charge(machine, key.bit_length() // 512)  # type: ignore[attr-defined]
            _count(machine, key, holder)
    elif kind is tuple or kind is frozenset:
        _walk(machine, key)  # type: ignore[arg-type]
        _count(machine, key, holder)
    else:
        _check_atom(key)


def _check_atom(key: object) -> None:
    if not isinstance(key, _ATOMS):
        raise Fault("a hashable key", f"a {type(key).__name__}")


def _charge(machine: Machine, units: int) -> None:
    machine.key_budget -= units
    if machine.key_budget < 0:
        raise _costly(machine)


def _costly(machine: Machine) -> Fault:
    """Few bytes that ask for so much are an attack on whoever hashes the key: every loader does.

    Many bytes may ask for it honestly, a million times a key of ten parts, say.
    """
    limits, size = machine.limits, machine.size
    spent = limits.max_expansion + size - machine.key_budget
    return Fault(
        f"keys of at most Limits.max_expansion ({limits.max_expansion:,}) parts to hash",
        f"{spent:,} out of {size:,} bytes",
        Amplified if spent > limits.max_ratio * size else LimitExceeded,
    )


def _walk(machine: Machine, key: Key) -> None:
    """Charge for all that hashing and comparing would visit, parts met twice charged twice.

    Only what it costs comes out so large: no part is visited here twice.
    """
    units, inner = _flat(key)
    if not inner:
        return _charge(machine, units)
    known: dict[int, tuple[int, int]] = {}  # units and height; `key` keeps the parts alive
    todo: list[Key] = [key]
    while todo:
        part = todo[-1]
        if id(part) in known:
            todo.pop()
            continue
        units, inner = _flat(part)
        unknown = [item for item in inner if id(item) not in known]
        if unknown:
            todo += unknown
            continue
        sizes = [known[id(item)] for item in inner]
        height = 1 + max((height for _, height in sizes), default=0)
        known[id(part)] = (min(units + sum(units for units, _ in sizes), MOST), height)
    units, height = known[id(key)]
    _charge(machine, units)
    if height > MAX_DEPTH:
        raise Fault(f"keys nested at most {MAX_DEPTH} deep", "more", LimitExceeded, _DISHONEST)
    return None


def _flat(key: Key) -> tuple[int, list[Key]]:
    """What the parts of `key` cost to hash, less what lies in the tuples among them; and those."""
    units = len(key)
    inner: list[Key] = []
    for item in key:
        kind = item.__class__
        if kind is tuple or kind is frozenset:
            inner.append(item)  # type: ignore[arg-type]
        elif kind is str or kind is bytes:
            units += len(item) // 64  # type: ignore[arg-type]
        elif kind is int:
            units += item.bit_length() // 512  # type: ignore[attr-defined]
        else:
            _check_atom(item)
    return units, inner


def _count(machine: Machine, key: object, holder: Sized) -> None:
    """Refuse many keys of one hash in one holder: each would be compared with all before it.

    Hashes of ints and of tuples are public, so that anybody can make a million that are equal.
    """
    if len(holder) <= _FREE_COLLISIONS:
        return
    if machine.collisions is None:
        machine.collisions = array("I", bytes(4 * _BUCKETS))
    bucket = hash((hash(key), id(holder))) % _BUCKETS
    machine.collisions[bucket] += 1
    machine.keys_counted += 1
    allowed = _FREE_COLLISIONS + machine.keys_counted // 2048
    if machine.collisions[bucket] > allowed:
        raise Fault("keys with different hashes", "many with one", Amplified, _DISHONEST)
