"""Elements from where a box has them to where the result wants them, by slice assignments.

An assignment between extended slices is a loop in C; what is left to Python are the dimensions
around it, so that the one which makes them cheapest is taken for the slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tensorkeep.checkpoints._boxes import walk

# Nanoseconds, measured: an assignment; an element moved by it; the same in bytearrays, a byte.
_CALL, _ELEMENT, _BYTE = 300.0, 6.0, 1.6
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}

Pairs = Iterator[tuple[int, int]]
Step = tuple[int, int, int]  # how many, how far apart in the source, how far apart in the result


def move(
    source: bytearray,
    at: int,
    stride: Sequence[int],
    target: bytearray,
    extents: Sequence[int],
    unit: int,
) -> None:
    """Fill the start of `target`, row-major, with the part of `source` that begins `at`.

    `at` and `stride` in units of `unit` bytes (1, 2, 4 or 8); both buffers whole units long.
    """
    steps = _joined(extents, stride) or [(1, 1, 1)]
    best = min(range(len(steps)), key=lambda which: _cost(steps, which, unit))
    step = steps.pop(best)
    pairs = walk([s[0] for s in steps], [s[1] for s in steps], [s[2] for s in steps])
    if step[1] == 0:
        _repeat(source, at, target, step, pairs, unit)
    elif unit > 2 or step[1:] == (1, 1):
        _move_units(source, at, target, step, pairs, unit)
    else:
        _move_bytes(source, at, target, step, pairs, unit)


def _joined(extents: Sequence[int], stride: Sequence[int]) -> list[Step]:
    """The dimensions, innermost first; those that lie as one in the source count as one."""
    steps: list[Step] = []
    far = 1
    for count, near in zip(reversed(extents), reversed(stride), strict=True):
        if count == 1:
            continue
        if steps and near == steps[-1][0] * steps[-1][1]:
            inner = steps[-1]
            steps[-1] = (inner[0] * count, inner[1], inner[2])
        else:
            steps.append((count, near, far))
        far *= count
    return steps


def _cost(steps: Sequence[Step], which: int, unit: int) -> float:
    """Nanoseconds per element with this dimension in the slices."""
    count, near, far = steps[which]
    if near == far == 1:
        return _CALL / count
    if unit <= 2 and near:
        return unit * (_CALL / count + _BYTE)
    return _CALL / count + _ELEMENT


def _move_units(
    source: bytearray, at: int, target: bytearray, step: Step, pairs: Pairs, unit: int
) -> None:
    count, near, far = step
    reach_near, reach_far = (count - 1) * near + 1, (count - 1) * far + 1
    theirs = memoryview(source).cast(_FORMATS[unit])[at:]
    ours = memoryview(target).cast(_FORMATS[unit])
    for x, y in pairs:
        ours[y : y + reach_far : far] = theirs[x : x + reach_near : near]


def _move_bytes(
    source: bytearray, at: int, target: bytearray, step: Step, pairs: Pairs, unit: int
) -> None:
    """Slices of a bytearray are several times faster than those of a view, byte for byte."""
    count, near, far = step[0], step[1] * unit, step[2] * unit
    reach_near, reach_far = (count - 1) * near + 1, (count - 1) * far + 1
    for x, y in pairs:
        for byte in range(unit):
            here, there = (at + x) * unit + byte, y * unit + byte
            target[there : there + reach_far : far] = source[here : here + reach_near : near]


def _repeat(
    source: bytearray, at: int, target: bytearray, step: Step, pairs: Pairs, unit: int
) -> None:
    """A stride of 0 in the source: one element, many times."""
    count, _, far = step
    ours = memoryview(target).cast(_FORMATS[unit])
    for x, y in pairs:
        here = (at + x) * unit
        copies = memoryview(source[here : here + unit] * count).cast(_FORMATS[unit])
        ours[y : y + (count - 1) * far + 1 : far] = copies
