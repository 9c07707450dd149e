"""Do blocks tile a tensor: none outside, none over another, no hole?

Writers cut along dimensions, so blocks fall apart along one of them into groups that do not
reach into each other, those along another, and so on: time nearly linear in their number.
What cannot be cut so (a pinwheel) is compared pair by pair while that is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Protocol


@dataclass(slots=True)
class Steps:
    """How much comparing is left to spend, over all tensors of a checkpoint."""

    left: int = 4_000_000


class Block(Protocol):
    """A block of a tensor, in elements."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def fault(shape: tuple[int, ...], blocks: Sequence[Block], steps: Steps) -> tuple[str, str]:
    """Kind of the anomaly and words for it, or two empty strings: do `blocks` tile `shape`?"""
    steps.left += 16 * len(blocks)  # what honest ones cost, whatever came before
    for block in blocks:
        if len(block.offsets) != len(shape) or len(block.sizes) != len(shape):
            return "chunk-out-of-bounds", f"a chunk of {len(block.sizes)} dimensions"
        if min((*block.offsets, *block.sizes), default=0) < 0:
            return "chunk-out-of-bounds", "a chunk with a negative offset or size"
        ends = (o + n for o, n in zip(block.offsets, block.sizes, strict=True))
        if any(end > size for end, size in zip(ends, shape, strict=True)):
            return "chunk-out-of-bounds", f"a chunk at {list(block.offsets)} that reaches outside"
    full = [block for block in blocks if prod(block.sizes)]
    if _overlap(full, len(shape), steps):
        return "chunks-overlap", "chunks that lie over each other"
    if steps.left < 0:
        return "chunks-overlap", f"{len(full)} chunks in no order that a writer would make"
    covered, wanted = sum(prod(block.sizes) for block in full), prod(shape)
    if covered != wanted:
        return "hole-between-chunks", f"chunks with {covered} of {wanted} elements"
    return "", ""


def _overlap(blocks: list[Block], dimensions: int, steps: Steps) -> bool:
    waiting = [blocks]
    while waiting and steps.left >= 0:
        group = waiting.pop()
        if len(group) < 2:
            continue
        parts = _cut(group, dimensions, steps)
        if len(parts) > 1:
            waiting += parts
        elif _any_pair(group, steps):
            return True
    return False


def _cut(blocks: list[Block], dimensions: int, steps: Steps) -> list[list[Block]]:
    """Groups that share no place along one dimension; the blocks themselves if there is none."""
    for d in range(dimensions):
        steps.left -= len(blocks)
        parts: list[list[Block]] = []
        end = -1
        for block in sorted(blocks, key=lambda block: block.offsets[d]):
            if not parts or block.offsets[d] >= end:
                parts.append([])
            parts[-1].append(block)
            end = max(end, block.offsets[d] + block.sizes[d])
        if len(parts) > 1:
            return parts
    return [blocks]


def _any_pair(blocks: list[Block], steps: Steps) -> bool:
    for a, b in combinations(blocks, 2):
        steps.left -= 1
        if steps.left < 0:
            return False
        if _touch(a, b):
            return True
    return False


def _touch(a: Block, b: Block) -> bool:
    sides = zip(a.offsets, a.sizes, b.offsets, b.sizes, strict=True)
    return all(x < y + m and y < x + n for x, n, y, m in sides)
