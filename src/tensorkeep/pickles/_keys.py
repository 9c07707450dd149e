"""What may become a dict key or a set member.

CPython hashes and compares keys recursively in C: a tuple nested deep enough kills the process,
one that shares its parts takes exponential time, and equal hashes make a dict quadratic. Every
key that is not a small atom is walked here first, without recursion and against a budget.
"""

from __future__ import annotations

from array import array
from collections.abc import Sized

from tensorkeep.errors import LimitExceeded
from tensorkeep.pickles._state import Fault, Machine, too_much
from tensorkeep.pickles.values import Node

MAX_DEPTH = 64
SHORT = 1024  # characters; comparing two longer equal strings is charged for
_PLAIN_INT = (1 << 61) - 1  # below this an int is its own hash, so that no two collide
_BUCKETS = 1 << 16
_FREE_COLLISIONS = 64
_ATOMS = (float, bool, Node, type(None))
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
        limit = machine.limits.max_expansion
        raise too_much("nodes of keys to hash and compare", limit, limit - machine.key_budget)


def _walk(machine: Machine, key: tuple[object, ...] | frozenset[object]) -> None:
    """Visit all that hashing and comparing would visit, parts met twice visited twice."""
    levels = [iter(key)]
    while levels:
        for item in levels[-1]:
            _charge(machine, 1)
            kind = item.__class__
            if kind is tuple or kind is frozenset:
                if len(levels) >= MAX_DEPTH:
                    raise Fault(
                        f"keys nested at most {MAX_DEPTH} deep", "more", LimitExceeded, _DISHONEST
                    )
                levels.append(iter(item))  # type: ignore[call-overload]
                break
            if kind is str or kind is bytes:
                _charge(machine, len(item) // 64)  # type: ignore[arg-type]
            elif kind is int:
                _charge(machine, item.bit_length() // 512)  # type: ignore[attr-defined]
            else:
                _check_atom(item)
        else:
            levels.pop()


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
        raise Fault("keys with different hashes", "many with one", LimitExceeded, _DISHONEST)
