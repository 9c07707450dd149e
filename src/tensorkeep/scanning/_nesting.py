"""How deep the objects of a program lie in each other.

A list, a tuple and a dict are taken apart by CPython without a deep stack. A defaultdict, numpy's
arrays of objects and others are not: a hundred thousand of them, each in the next, load well, and
end the process when the last name for them is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tensorkeep.pickles import Call, Effect, Import

# Pickle writes by recursion, and CPython ends that at a thousand levels, several to an object.
MOST = 4_000
_LEAVES = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2"})  # they hold no other object
_CONTAINERS = frozenset({tuple, list, dict, set, frozenset})


def too_deep(trace: Iterable[Import | Call | Effect]) -> Call | None:
    """The call of an object that holds more than `MOST` others, one in the other; None for none."""
    calls = [event for event in trace if type(event) is Call and _may_hold(event)]
    if len(calls) <= MOST:
        return None
    heights: dict[int, int] = {}  # the program keeps what is walked, and its identity
    for call in calls:
        if id(call) not in heights and _measure(call, heights) > MOST:
            return call
    return None


def _may_hold(call: Call) -> bool:
    if not call.effects and (call.args == () or call.args is None):
        return False
    return getattr(call.func, "name", "") not in _LEAVES


def _measure(root: Call, heights: dict[int, int]) -> int:
    """The objects on the longest way down from `root`; one that is above itself counts once."""
    heights[id(root)] = 0
    way = [(id(root), 1, _parts(root))]
    found = [0]
    while way:
        key, own, parts = way[-1]
        for part in parts:
            if type(part) is not Call and type(part) not in _CONTAINERS:
                continue
            if id(part) in heights:
                found[-1] = max(found[-1], heights[id(part)])
                continue
            heights[id(part)] = 0
            way.append((id(part), int(type(part) is Call), _parts(part)))
            found.append(0)
            break
        else:
            way.pop()
            heights[key] = found.pop() + own
            if found:
                found[-1] = max(found[-1], heights[key])
    return heights[id(root)]


def _parts(value: object) -> Iterator[object]:
    if type(value) is Call:
        yield value.args
        yield value.kwargs
        for effect in value.effects or ():
            yield from effect.args
    elif type(value) is dict:
        yield from value
        yield from value.values()
    else:
        yield from value  # type: ignore[misc]
