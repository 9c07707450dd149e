"""Which parts of a strided view to read together: geometry only, in *units* of 1 to 8 bytes.

A box is whole trailing dimensions, some rows of one, and one place in each of the leading ones:
so it is one run of the result. Sizes come from files and may be enormous: nothing is listed here
that is longer than a few thousand entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

# What a read costs beyond its bytes, in bytes: some microseconds of calls at memory speed.
_CALL = 16 << 10
# How many times the result, or the stretch of storage it spans, may be read in all.
_AMPLIFICATION = 4
# Rows that lie a power of two apart share a few sets of the processor's cache and push each
# other out: such rows are laid an odd number of cache lines apart.
_LINE = 64
_PAD_FROM = 8 * _LINE
_LISTED = 4096

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A view without what does not matter: `shape` and `stride` in units of `unit` bytes.

    `grain`: how many units make an element, which is never cut apart. `order`: the dimensions by
    stride, smallest first, those of stride 0 left out.
    """

    shape: Shape
    stride: Shape
    unit: int
    grain: int
    order: Shape


@dataclass(frozen=True, slots=True)
class Layout:
    """How a box is read, and how it lies in memory then, in units.

    For each combination of the `looped` dimensions, outermost first, there is one read of `run`
    units. `stride` is each dimension's in memory, `length` all that is taken up. `direct`: the
    box lies there just as the result wants it.
    """

    stride: Shape
    looped: Shape
    reads: int
    run: int
    length: int
    direct: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Cut the view into `rows` of dimension `axis`; a read spans the `inner` smallest strides."""

    axis: int
    rows: int
    inner: int


def simplify(itemsize: int, shape: Sequence[int], stride: Sequence[int]) -> View:
    """Drop dimensions of size 1, join those that lie as one, and take the largest unit that fits.

    The view is not empty and not contiguous.
    """
    unit, dims = itemsize, [(size, step) for size, step in zip(shape, stride, strict=True)]
    if itemsize == 16:
        unit, dims = 8, [*((size, 2 * step) for size, step in dims), (2, 1)]
    dims = _joined(dims)
    while unit < 8 and _halves(dims):
        unit, dims = (
            2 * unit,
            [(size, step // 2) for size, step in dims[:-1]] + [(dims[-1][0] // 2, 1)],
        )
    dims = _joined(dims)
    order = sorted((at for at, dim in enumerate(dims) if dim[1]), key=lambda at: dims[at][1])
    sizes, steps = tuple(size for size, _ in dims), tuple(step for _, step in dims)
    return View(sizes, steps, unit, max(itemsize // unit, 1), tuple(order))


def _joined(dims: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for size, step in dims:
        if size == 1:
            continue
        if kept and kept[-1][1] == size * step:
            kept[-1] = (kept[-1][0] * size, step)
        else:
            kept.append((size, step))
    return kept


def _halves(dims: Sequence[tuple[int, int]]) -> bool:
    """Whether two neighbours are always read together, so that they can count as one unit."""
    if not dims or dims[-1][1] != 1 or dims[-1][0] % 2:
        return False
    return all(step % 2 == 0 for _, step in dims[:-1])


def layout(view: View, extents: Shape, inner: int) -> Layout:
    """Lay out a box of `extents`, each read spanning the `inner` dimensions of smallest stride."""
    order = [at for at in view.order if extents[at] > 1]
    spanned, looped = order[:inner], order[inner:]
    run = 1 + sum((extents[at] - 1) * view.stride[at] for at in spanned)
    stride = [0] * len(extents)
    for at in spanned:
        stride[at] = view.stride[at]
    reads = prod(extents[at] for at in looped)
    _stack(stride, looped, extents, run)
    direct = _is_row_major(extents, stride)
    step = run
    if not direct and looped and run * view.unit >= _PAD_FROM:
        step = (-(-run * view.unit // _LINE) | 1) * _LINE // view.unit
        _stack(stride, looped, extents, step)
    return Layout(tuple(stride), tuple(reversed(looped)), reads, run, reads * step, direct)


def _stack(stride: list[int], looped: Sequence[int], extents: Shape, step: int) -> None:
    for at in looped:
        stride[at] = step
        step *= extents[at]


def _is_row_major(extents: Shape, stride: Sequence[int]) -> bool:
    step = 1
    for size, got in zip(reversed(extents), reversed(stride), strict=True):
        if size > 1 and got != step:
            return False
        step *= size
    return True


def choose(view: View, room: int) -> Plan:
    """The cut that costs least per element, its boxes no larger than `room` bytes.

    Of cuts that cost nearly the same it is the smallest: its box stays in the cache.
    """
    found = list(_candidates(view, room))
    least = min(cost for cost, _, _ in found)
    near = [(size, cost, plan) for cost, size, plan in found if cost <= 1.1 * least]
    return min(near, key=lambda one: one[:2])[2]


def _candidates(view: View, room: int) -> Iterator[tuple[float, int, Plan]]:
    """Cost per element, elements of a box, and plan, for every cut that fits."""
    span = 1 + sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True))
    budget = _AMPLIFICATION * max(prod(view.shape), span)
    for axis, rows in _cuts(view, max(room // view.unit, view.grain)):
        extents = (1,) * axis + (rows, *view.shape[axis + 1 :])
        size = prod(extents)
        boxes = prod(view.shape[:axis]) * -(-view.shape[axis] // rows)
        for inner in range(len(view.order) + 1):
            plan = layout(view, extents, inner)
            units = plan.reads * plan.run
            fits = plan.length * view.unit <= room and boxes * units <= budget
            if fits or (rows == view.grain and axis == len(view.shape) - 1 and not inner):
                cost = _CALL * (plan.reads + 1) + units * view.unit
                yield cost / size, size, Plan(axis, rows, inner)


def _cuts(view: View, most: int) -> Iterator[tuple[int, int]]:
    """Axis and rows of boxes of at most `most` units, rows halved again and again."""
    last = len(view.shape) - 1
    whole = 1
    for axis in range(last, -1, -1):
        grain = view.grain if axis == last else 1
        rows = min(view.shape[axis], most // whole)
        while rows >= grain:
            rows -= rows % grain
            yield axis, rows
            rows //= 2
        whole *= view.shape[axis]
        if whole > most:
            return


def pieces(view: View, extents: Shape, most: int) -> tuple[int, int]:
    """Axis and rows that cut a box into pieces of at most `most` units, nearly equal ones."""
    whole, axis = 1, len(extents) - 1
    while axis and whole * extents[axis] <= most:
        whole *= extents[axis]
        axis -= 1
    rows = max(most // whole, 1)
    rows = -(-extents[axis] // -(-extents[axis] // rows))
    if axis == len(extents) - 1 and rows % view.grain:
        rows = rows - rows % view.grain or view.grain
    return axis, rows


def cut(extents: Shape, stride: Shape, axis: int, rows: int) -> Iterator[tuple[int, Shape]]:
    """Offset and extents of each part of a box, in the order of the result."""
    tail = extents[axis + 1 :]
    for offset, _ in walk(extents[:axis], stride[:axis], stride[:axis]):
        for at in range(0, extents[axis], rows):
            part = (1,) * axis + (min(rows, extents[axis] - at), *tail)
            yield offset + at * stride[axis], part


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
