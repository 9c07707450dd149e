"""Which tensors are the same memory, which only share some of it, and what no tensor reaches.

Tied weights are one tensor under several names; a view shares bytes with another tensor without
being it. Both are told from the index alone, no byte is read.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from tensorkeep.checkpoints.gathering import Strided
from tensorkeep.dtypes import BY_NAME

# Name, storage key, dtype name; shape, stride and offset in elements.
Row = tuple[str, Hashable, str, tuple[int, ...], tuple[int, ...], int]
_Key = TypeVar("_Key", bound=Hashable)


def tie(rows: Iterable[Row]) -> dict[str, str]:
    """Each name that stands for the very same tensor as an earlier one, and that earliest name.

    The same: storage, dtype, shape, stride and offset. An empty tensor is nobody's twin: it has
    no bytes to share. Strides are compared as the file has them, those of dimensions of size 1
    excepted, which mean nothing. Linear in the rows.
    """
    first: dict[Hashable, str] = {}
    tied: dict[str, str] = {}
    for name, storage, dtype, shape, stride, offset in rows:
        if 0 in shape:
            continue
        place = (storage, dtype, shape, meant(shape, stride), offset)
        earliest = first.setdefault(place, name)
        if earliest != name:
            tied[name] = earliest
    return tied


def meant(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """The strides that say where elements lie: those of dimensions of size 1 are 0."""
    if 1 not in shape:
        return stride
    return tuple(step if size != 1 else 0 for size, step in zip(shape, stride, strict=True))


def overlapping(rows: Iterable[Row]) -> list[list[str]]:
    """Groups of names whose tensors share bytes of a storage without all being the same tensor.

    Tensors share when the stretches from their first to their last byte do: the columns of one
    matrix count as sharing, as they do for `safetensors`. A chain of tensors of which each shares
    with the next is one group. Names are in the order of the bytes, groups in that of the first
    tensors of their storages. O(n log n).
    """
    spans: dict[Hashable, list[tuple[int, int, str]]] = {}
    kept = list(rows)
    for name, storage, dtype, shape, stride, offset in kept:
        begin, end = Strided(BY_NAME[dtype].itemsize, shape, stride, offset).span()
        if end > begin:
            spans.setdefault(storage, []).append((begin, end, name))
    tied = tie(kept)
    groups = (group for found in spans.values() for group in _chains(found))
    return [group for group in groups if len({tied.get(name, name) for name in group}) > 1]


def _chains(spans: list[tuple[int, int, str]]) -> list[list[str]]:
    chains: list[list[str]] = []
    reached = 0
    for begin, end, name in sorted(spans):
        if not chains or begin >= reached:
            chains.append([])
        chains[-1].append(name)
        reached = max(reached, end)
    return chains


def dead_bytes(sizes: Mapping[_Key, int], spans: Iterable[tuple[_Key, int, int]]) -> int:
    """Bytes of the storages in `sizes` (bytes by key) that no span reaches.

    A span is (key, first byte, one more than the last); what it has beyond its storage, or in a
    storage that is not in `sizes`, does not count. O(n log n).
    """
    by_storage: dict[_Key, list[tuple[int, int]]] = {}
    for key, begin, end in spans:
        by_storage.setdefault(key, []).append((begin, end))
    live = sum(_covered(found, sizes.get(key, 0)) for key, found in by_storage.items())
    return sum(sizes.values()) - live


def _covered(spans: list[tuple[int, int]], size: int) -> int:
    """Bytes below `size` that lie in at least one of the spans."""
    covered = reached = 0
    for begin, end in sorted(spans):
        stop = min(end, size)
        covered += max(stop - max(begin, reached), 0)
        reached = max(reached, stop)
    return covered
