"""Elements from where a box has them to where the result wants them, by slice assignments.

An assignment between extended slices is a loop in C; what is left to Python are the dimensions
around it, so that the one which makes them cheapest is taken for the slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

# Nanoseconds, measured: an assignment; an element moved by it; a byte moved between bytearrays;
# and what is added to the last two where neighbours of the slice are no neighbours in the target,
# which is too large for the processor's cache.
_CALL, _ELEMENT, _BYTE, _FAR_ELEMENT, _FAR_BYTE = 700.0, 6.5, 1.6, 2.0, 3.5
_LINE = 64

# The longest list of pairs that `walk` keeps: sizes come from files and may be enormous.
_LISTED = 4096

Pairs = Iterator[tuple[int, int]]
Step = tuple[int, int, int]  # how many, how far apart in the source, how far apart in the target


@dataclass(frozen=True, slots=True)
class Side:
    """Where elements lie: in `data`, from unit `at` on, `stride` units apart in each dimension."""

    data: bytearray
    at: int
    stride: Sequence[int]

    def units(self, unit: int) -> memoryview[int]:
        """All of it as unsigned integers of `unit` bytes."""
        view = memoryview(self.data)
        if unit == 8:
            return view.cast("Q")
        if unit == 4:
            return view.cast("I")
        return view.cast("H") if unit == 2 else view


def move(source: Side, target: Side, extents: Sequence[int], unit: int) -> None:
    """Copy `extents` elements of `unit` bytes (1, 2, 4 or 8) from `source` to `target`.

    The strides of `target` are not 0; both buffers are whole units long.
    """
    steps = joined(extents, source.stride, target.stride)
    best = min(range(len(steps)), key=lambda which: nanoseconds(steps[which], unit))
    step = steps.pop(best)
    pairs = walk([s[0] for s in steps], [s[1] for s in steps], [s[2] for s in steps])
    if step[1] == 0:
        _repeat(source, target, step, pairs, unit)
    elif unit > 2 or step[1:] == (1, 1):
        _move_units(source, target, step, pairs, unit)
    else:
        _move_bytes(source, target, step, pairs, unit)


def joined(extents: Sequence[int], near: Sequence[int], far: Sequence[int]) -> list[Step]:
    """The dimensions, by stride in the target; those that lie as one on both sides count as one."""
    steps: list[Step] = []
    for count, x, y in sorted(zip(extents, near, far, strict=True), key=lambda dim: dim[2]):
        if count == 1:
            continue
        if steps and (x, y) == (steps[-1][0] * steps[-1][1], steps[-1][0] * steps[-1][2]):
            steps[-1] = (steps[-1][0] * count, *steps[-1][1:])
        else:
            steps.append((count, x, y))
    steps.reverse()
    return steps or [(1, 1, 1)]


def nanoseconds(step: Step, unit: int) -> float:
    """What an element costs with this dimension in the slices."""
    count, near, far = step
    if near == far == 1:
        return _CALL / count
    scattered = far * unit >= _LINE
    if unit <= 2 and near:
        return unit * (_CALL / count + _BYTE + scattered * _FAR_BYTE)
    return _CALL / count + _ELEMENT + scattered * _FAR_ELEMENT


def _move_units(source: Side, target: Side, step: Step, pairs: Pairs, unit: int) -> None:
    count, near, far = step
    reach_near, reach_far = (count - 1) * near + 1, (count - 1) * far + 1
    theirs, ours = source.units(unit)[source.at :], target.units(unit)[target.at :]
    for x, y in pairs:
        ours[y : y + reach_far : far] = theirs[x : x + reach_near : near]


def _move_bytes(source: Side, target: Side, step: Step, pairs: Pairs, unit: int) -> None:
    """Slices of a bytearray are several times faster than those of a view, byte for byte."""
    count, near, far = step[0], step[1] * unit, step[2] * unit
    reach_near, reach_far = (count - 1) * near + 1, (count - 1) * far + 1
    theirs, ours = source.data, target.data
    for x, y in pairs:
        for byte in range(unit):
            here, there = (source.at + x) * unit + byte, (target.at + y) * unit + byte
            ours[there : there + reach_far : far] = theirs[here : here + reach_near : near]


def _repeat(source: Side, target: Side, step: Step, pairs: Pairs, unit: int) -> None:
    """A stride of 0 in the source: one element, many times."""
    count, _, far = step
    ours = target.units(unit)[target.at :]
    for x, y in pairs:
        here = (source.at + x) * unit
        one = Side(source.data[here : here + unit] * count, 0, ())
        ours[y : y + (count - 1) * far + 1 : far] = one.units(unit)


def walk(
    counts: Sequence[int], first: Sequence[int], second: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Every combination of indices below `counts`, the last fastest, as two dot products."""
    inner, at = [(0, 0)], len(counts)
    while at and len(inner) * counts[at - 1] <= _LISTED:
        at -= 1
        a, b = first[at], second[at]
        inner = [(n * a + x, n * b + y) for n in range(counts[at]) for x, y in inner]
    outer = list(zip(counts[:at], first[:at], second[:at], strict=True))
    outer.reverse()
    for number in range(prod(counts[:at])):
        x, y, rest = 0, 0, number
        for count, a, b in outer:
            rest, index = divmod(rest, count)
            x, y = x + index * a, y + index * b
        for u, v in inner:
            yield x + u, y + v
