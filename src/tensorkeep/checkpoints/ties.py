"""Which tensors are the same one, which share bytes, and which bytes no tensor reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

# Name, storage key, dtype, shape, stride and offset (both in elements).
Row = tuple[str, str, str, tuple[int, ...], tuple[int, ...], int]
# Storage key, first byte touched and one more than the last.
Span = tuple[str, int, int]


def tie(rows: Iterable[Row]) -> dict[str, str]:
    """Further names of a tensor: name to the first name of the very same view.

    The same storage, dtype, shape, stride and offset. Empty tensors are never tied: torch gives
    all of them the same storage.
    """
    first: dict[tuple[object, ...], str] = {}
    tied = {}
    for row in rows:
        name, shape = row[0], row[3]
        if prod(shape) == 0:
            continue
        kept = first.setdefault(row[1:], name)
        if kept != name:
            tied[name] = kept
    return tied


def dead_bytes(sizes: Mapping[str, int], spans: Iterable[Span]) -> int:
    """Bytes of the storages (key to length in bytes) that none of `spans` covers.

    A span counts whole, also where a view with large steps touches only some of its bytes.
    """
    covered: dict[str, int] = {}
    reached: dict[str, int] = {}
    for key, begin, end in sorted(spans):
        start = max(begin, reached.get(key, 0))
        if end > start:
            covered[key] = covered.get(key, 0) + end - start
            reached[key] = end
    return sum(size - min(covered.get(key, 0), size) for key, size in sizes.items())
