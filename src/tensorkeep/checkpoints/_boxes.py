"""Which parts of a strided view to read together: geometry only, in *units* of 1 to 8 bytes.

A *box* is whole trailing dimensions, some rows of one, and one place in each of the leading ones:
one run of the result. It is read in *parts*, in the order of the storage: a part fits a scratch
buffer, gaps included. Sizes come from files and may be enormous: nothing is listed here that is
long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from tensorkeep.formats.moving import joined, nanoseconds, walk

# Nanoseconds, measured on memory-resident files: a read, a byte of it, a part.
_READ, _BYTE, _PART = 3000.0, 0.2, 20_000.0
# How many times the result, or the stretch of storage that it spans, may be read in all. Gaps
# under a page do not count: a device reads whole pages.
_AMPLIFICATION, _PAGE = 8, 4096
# Rows that lie a power of two apart share a few sets of the processor's cache and push each
# other out: such rows are laid an odd number of cache lines apart.
_LINE = 64
_PAD_FROM = 8 * _LINE

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A view without what does not matter: `shape` and `stride` in units of `unit` bytes.

    `grain`: how many units make an element, which is never cut apart. `order`: the dimensions by
    stride, largest first, those of stride 0 last; `moving` is how many are not of stride 0.
    """

    shape: Shape
    stride: Shape
    unit: int
    grain: int
    order: Shape
    moving: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Boxes of `rows` of dimension `axis`; a read spans the `inner` dimensions of least stride."""

    axis: int
    rows: int
    inner: int


@dataclass(frozen=True, slots=True)
class Box:
    """How one box is read. Its dimensions are in the order of the storage, as `View.order` says.

    `there` and `out` are their strides in the storage and in the result. A part is `rows` of
    dimension `axis`, one place in those before it and all of those behind. There is one read for
    each combination of the dimensions before `spanned`; reads lie `step` apart in the scratch
    buffer. `direct`: read one after the other, without one, they are the result.
    """

    extents: Shape
    there: Shape
    out: Shape
    spanned: int
    axis: int
    rows: int
    step: int
    direct: bool

    @property
    def parts(self) -> int:
        """How many parts it is read in."""
        return prod(self.extents[: self.axis]) * -(-self.extents[self.axis] // self.rows)

    @property
    def reads(self) -> int:
        """How many reads it takes."""
        return max(prod(self.extents[: self.spanned]), self.parts)

    @property
    def units(self) -> int:
        """Units that are read."""
        units = prod(self.extents[: self.spanned]) * self.run(self.extents)
        if self.axis < self.spanned or self.direct:
            return units
        # A read that was cut: what lies between two parts is not read, what they share is twice.
        cuts = self.reads - prod(self.extents[: self.spanned])
        return units + cuts * (self.step - self.there[self.axis])

    def run(self, part: Shape) -> int:
        """Units of one read of a part."""
        return _reach(part[self.spanned :], self.there[self.spanned :])

    def length(self, part: Shape) -> int:
        """Units that a part takes in the scratch buffer."""
        return (prod(part[: self.spanned]) - 1) * self.step + self.run(part)

    def near(self, part: Shape) -> Shape:
        """The strides of a part in the scratch buffer."""
        stride, step = list(self.there), self.step
        for at in reversed(range(self.spanned)):
            stride[at] = step
            step *= part[at]
        return tuple(stride)


def simplify(itemsize: int, shape: Sequence[int], stride: Sequence[int]) -> View:
    """Drop dimensions of size 1, join those that lie as one, and take the largest unit that fits.

    The view is not empty and not contiguous.
    """
    unit, dims = itemsize, list(zip(shape, stride, strict=True))
    if itemsize == 16:
        unit, dims = 8, [*((size, 2 * step) for size, step in dims), (2, 1)]
    dims = _joined(dims)
    while unit < 8 and _in_pairs(dims):
        unit, size = 2 * unit, dims[-1][0] // 2
        dims = _joined([*((size, step // 2) for size, step in dims[:-1]), (size, 1)])
    order = sorted(range(len(dims)), key=lambda at: -dims[at][1])
    moving = sum(step > 0 for _, step in dims)
    sizes, steps = tuple(size for size, _ in dims), tuple(step for _, step in dims)
    return View(sizes, steps, unit, max(itemsize // unit, 1), tuple(order), moving)


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


def _in_pairs(dims: Sequence[tuple[int, int]]) -> bool:
    """Whether two neighbours always go together, so that they can count as one unit."""
    if not dims or dims[-1][1] != 1 or dims[-1][0] % 2:
        return False
    return all(step % 2 == 0 for _, step in dims[:-1])


def _reach(sizes: Sequence[int], steps: Sequence[int]) -> int:
    return 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))


def box(view: View, extents: Shape, inner: int, scratch: int) -> Box | None:
    """How to read a box of `extents` by way of `scratch` units; None if a read does not fit."""
    out, step = [0] * len(extents), 1
    for at in reversed(range(len(extents))):
        out[at] = step
        step *= extents[at]
    sizes = tuple(extents[at] for at in view.order)
    there = tuple(view.stride[at] for at in view.order)
    far = tuple(out[at] for at in view.order)
    spanned = view.moving - inner
    run = _reach(sizes[spanned:], there[spanned:])
    whole = Box(sizes, there, far, spanned, 0, sizes[0], run, direct=True)
    near = whole.near(sizes)
    if all(size == 1 or a == b for size, a, b in zip(sizes, near, far, strict=True)):
        return whole
    if run > scratch:
        return _split(whole, scratch, inner)
    if spanned and run * view.unit >= _PAD_FROM:
        run = (-(-run * view.unit // _LINE) | 1) * _LINE // view.unit
    axis, rows = _most(sizes[:spanned], max(scratch // run, 1))
    return Box(sizes, there, far, spanned, axis, rows, run, direct=False)


def _split(whole: Box, scratch: int, inner: int) -> Box | None:
    """One read a part, over as many rows of its outermost dimension as the scratch buffer has."""
    at = whole.spanned
    rest = _reach(whole.extents[at + 1 :], whole.there[at + 1 :])
    if not inner or rest > scratch:
        return None
    rows = (scratch - rest) // whole.there[at] + 1
    return Box(whole.extents, whole.there, whole.out, at, at, rows, rest, direct=False)


def _most(sizes: Shape, limit: int) -> tuple[int, int]:
    """Axis and rows of the largest trailing part of `sizes` with at most `limit` elements."""
    axis, whole = len(sizes) - 1, 1
    while axis > 0 and whole * sizes[axis] <= limit:
        whole *= sizes[axis]
        axis -= 1
    if axis < 0:
        return 0, 1 << 63
    return axis, max(limit // whole, 1)


def choose(view: View, room: int, scratch: int) -> Plan:
    """The boxes that cost least per element; `room` is for the result of one, in units.

    Of those that cost nearly the same the smallest are taken: they stay in the cache.
    """
    if prod(view.shape) <= room and _reach(view.shape, view.stride) <= scratch:
        return Plan(0, view.shape[0], view.moving)
    found = list(_candidates(view, room, scratch))
    least = min(cost for cost, _, _ in found)
    near = [one for one in found if one[0] <= 1.1 * least]
    return min(near, key=lambda one: (one[1], one[0]))[2]


def _candidates(view: View, room: int, scratch: int) -> Iterator[tuple[float, int, Plan]]:
    """Cost of an element, elements of a box, and plan, for every cut that is allowed."""
    budget = _AMPLIFICATION * max(prod(view.shape), _reach(view.shape, view.stride))
    for axis, rows in _cuts(view, room, scratch):
        extents = ((1,) * axis) + (rows, *view.shape[axis + 1 :])
        size = prod(extents)
        boxes = prod(view.shape[:axis]) * -(-view.shape[axis] // rows)
        for inner in range(view.moving + 1):
            way = box(view, extents, inner, scratch)
            if way and (_no_gap(view, inner) or boxes * way.units <= budget):
                yield _cost(way, view.unit) / size, size, Plan(axis, rows, inner)


def _no_gap(view: View, inner: int) -> bool:
    """Whether a read that spans `inner` dimensions leaves out no page. A single unit never does."""
    return inner == 0 or view.stride[view.order[view.moving - inner]] * view.unit <= _PAGE


def _cost(way: Box, unit: int) -> float:
    """Nanoseconds for a box."""
    cost = way.reads * _READ + way.units * unit * _BYTE
    if way.direct:
        return cost
    part = (1,) * way.axis + (min(way.rows, way.extents[way.axis]), *way.extents[way.axis + 1 :])
    steps = joined(part, way.near(part), way.out)
    return cost + way.parts * _PART + prod(way.extents) * min(nanoseconds(s, unit) for s in steps)


def _cuts(view: View, room: int, scratch: int) -> Iterator[tuple[int, int]]:
    """Axis and rows of boxes: as many as fit `room`, and halves of that down to `scratch`."""
    last, whole = len(view.shape) - 1, 1
    for axis in range(last, -1, -1):
        grain, size = view.grain if axis == last else 1, view.shape[axis]
        rows = min(size, room // whole)
        least = scratch // (2 * whole) if axis else min(size, scratch // (2 * whole))
        while rows >= max(grain, least):
            # Nearly equal boxes; the last would be a sliver otherwise.
            rows = -(-size // -(-size // rows))
            rows += -rows % grain
            yield axis, rows
            rows //= 2
        whole *= size
        if whole > room:
            return


def cut(
    extents: Shape, first: Shape, second: Shape, axis: int, rows: int
) -> Iterator[tuple[int, int, Shape]]:
    """Parts of a box, in the order of its dimensions: two offsets, and the extents.

    A part is `rows` of dimension `axis`, one place in those before and all of those behind it.
    """
    head, tail = (1,) * axis, extents[axis + 1 :]
    for x, y in walk(extents[:axis], first[:axis], second[:axis]):
        for at in range(0, extents[axis], rows):
            part = (*head, min(rows, extents[axis] - at), *tail)
            yield x + at * first[axis], y + at * second[axis], part
