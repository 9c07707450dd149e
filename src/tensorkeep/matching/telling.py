"""Why a tensor does not fit, in words: which dimension, whose size, and what could be done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from tensorkeep.edits.resizing import InflateConv, Resize, ResizePositions
from tensorkeep.edits.shaping import Reshape, Transpose
from tensorkeep.matching.finding import Match, Mismatch
from tensorkeep.matching.reshaping import POSITION, WORDS, edit_for

_HEAD = re.compile(r"(^|[._])(heads?|classifier|fc|logits|score|predictions?|cls)([._]|$)", re.I)
# Names looked at for each miss, and misses that are helped: each look costs time.
_NEAR, _HELPED = 400, 24
_ALIKE = 0.6
_REMEDIES: dict[type, str] = {
    Transpose: "transpose it: a Conv1D of GPT-2 or a file from TensorFlow has it the other way",
    Reshape: "reshape it: they differ in dimensions of 1 alone",
    Resize: "resize the vocabulary, or cut the positions",
    ResizePositions: "resize the position embedding",
    InflateConv: "inflate or sum the input channels of the first convolution",
}


def because(one: Mismatch) -> str:
    """What differs between the shapes, shortest useful words first."""
    file, model = one.file, one.model
    if len(file) == 2 and file[::-1] == model:
        return f"transposed: {_shape(file)} in the file, {_shape(model)} in the model"
    if sorted(file) == sorted(model):
        return f"its dimensions in another order: {_both(one)}"
    if len(file) == len(model):
        differ = [at for at, pair in enumerate(zip(file, model, strict=True)) if len({*pair}) > 1]
        if len(differ) == 1:
            return _dimension(one, differ[0])
    if _product(file) == _product(model):
        return f"as many elements in another shape: {_both(one)}"
    return _both(one)


def remedy(one: Mismatch) -> str:
    """What turns the file's tensor into the model's, where something does; or ""."""
    edit = edit_for(one.name, one.file, one.model, "x")
    return "" if edit is None else _REMEDIES[type(edit)]


def _dimension(one: Mismatch, at: int) -> str:
    a, b = one.file[at], one.model[at]
    rank = len(one.file)
    if POSITION.search(one.name) and at == rank - 2:
        words = "positions"
    elif at == 0 and WORDS.search(one.name):
        words = "words"
    elif at == 0 and rank <= 2 and _HEAD.search(one.name):
        words = "classes"
    elif at == 1 and rank == 4:
        words = "input channels"
    else:
        words = f"along dimension {at}"
    return f"{a} {words} in the file, {b} in the model"


def _product(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _shape(shape: Sequence[int]) -> str:
    return str(list(shape))


def _both(one: Mismatch) -> str:
    return f"{_shape(one.file)} in the file, {_shape(one.model)} in the model"


def suggestions(match: Match) -> dict[str, list[str]]:
    """For a missing tensor, names of the file that look like its own and go nowhere.

    Only names whose last part, or whose numbers, are the same are looked at, a bounded number.
    """
    found = {}
    by_leaf: dict[str, list[str]] = {}
    for name in match.unexpected:
        by_leaf.setdefault(name.rpartition(".")[2], []).append(name)
    for name in match.missing[:_HELPED]:
        pool = by_leaf.get(name.rpartition(".")[2]) or match.unexpected
        close = get_close_matches(name, _nearest(name, pool), 2, _ALIKE)
        if close:
            found[name] = close
    return found


def _nearest(name: str, pool: Sequence[str]) -> Sequence[str]:
    """Those of about its length, if there are too many."""
    if len(pool) <= _NEAR:
        return pool
    return sorted(pool, key=lambda other: (abs(len(other) - len(name)), other))[:_NEAR]


def groups(mismatched: Iterable[Mismatch]) -> dict[str, list[Mismatch]]:
    """Mismatches by their reason: a head's weight and bias have the same."""
    found: dict[str, list[Mismatch]] = {}
    for one in mismatched:
        found.setdefault(because(one), []).append(one)
    return found
