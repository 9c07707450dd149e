"""Projections that one side keeps as one tensor and the other as several: how to get there.

Names and shapes say which tensors; how the rows of the one are laid out they do not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensorkeep.edits.attention import Fuse, Split
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.shaping import Transpose
from tensorkeep.matching.moves import NUMBER, numbers, template
from tensorkeep.matching.rules import lettered, pattern_of

# Parts in the order of the fused tensor; three before two, as keys and values are in both.
_PARTS = (
    ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("to_q", "to_k", "to_v"),
    ("query_proj", "key_proj", "value_proj"), ("q", "k", "v"), ("wq", "wk", "wv"),
    ("q_lin", "k_lin", "v_lin"), ("linear_q", "linear_k", "linear_v"), ("gate_proj", "up_proj"),
    ("k_proj", "v_proj"), ("key", "value"), ("to_k", "to_v"), ("k", "v"), ("w1", "w3"),
)  # fmt: skip
_FUSED = re.compile(r"q_?k_?v|kv([._]|$)|in_proj|c_attn|query_key_value|gate_up|w_?1[23]", re.I)
# Models with this name lay out head after head (GPT-NeoX, BLOOM) or group after group (Falcon).
_BY_HEAD = "query_key_value"
_LEAVES = (".weight", ".bias")

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Projection:
    """One edit, or two with a transpose, and `fused` and `parts` in words."""

    edits: tuple[Edit, ...]
    fused: str
    by_head: bool


@dataclass(frozen=True, slots=True)
class _Build:
    """Fused tensor and parts with open numbers; `heads` queries share a key, 0: one has one."""

    fused: str
    parts: tuple[str, ...]
    heads: int


def splits(file: _Shapes, model: _Shapes) -> Iterator[list[Projection]]:
    """For each fused tensor of `file` whose parts `model` has, ways to say it, shortest first."""
    for build, turned in _builds(file, model).items():
        yield [_split(build, turned, said) for said in _said(build)]


def fusions(file: _Shapes, model: _Shapes) -> Iterator[list[Projection]]:
    """For each fused tensor of `model` whose parts `file` has, ways to say it, shortest first."""
    for build, turned in _builds(model, file).items():
        yield [_fuse(build, turned, said) for said in _said(build)]


def _split(build: _Build, turned: str, said: tuple[str, ...]) -> Projection:
    fused, *parts = said
    by_head = _BY_HEAD in fused
    layout = ("per-head", 1, 0) if by_head else ("concat", build.heads, int(build.heads > 0))
    edit = Split(fused, tuple(parts), *layout)  # type: ignore[arg-type]
    before = (Transpose(turned),) if turned else ()
    return Projection((*before, edit), fused, by_head)


def _fuse(build: _Build, turned: str, said: tuple[str, ...]) -> Projection:
    fused, *parts = said
    by_head = _BY_HEAD in fused
    layout = ("per-head", 1, 0) if by_head else ("concat", build.heads, int(build.heads > 0))
    edit = Fuse(tuple(part.removeprefix("^") for part in parts), fused.strip("^$"), *layout)  # type: ignore[arg-type]
    behind = (Transpose(turned),) if turned else ()
    return Projection((edit, *behind), fused, by_head)


def _builds(fused: _Shapes, parts: _Shapes) -> dict[_Build, str]:
    """Each build, and the pattern of the weights that are stored transposed, or ""."""
    by_numbers: dict[tuple[str, ...], list[str]] = {}
    for name in fused:
        if _FUSED.search(name):
            by_numbers.setdefault(tuple(numbers(name)), []).append(name)
    found: dict[_Build, str] = {}
    for group in _sets(parts):
        sizes = [parts[name] for name in group]
        near = by_numbers.get(tuple(numbers(group[0])), [])
        joined = _joined(sizes)
        fitting = [name for name in near if joined and fused[name] in (joined, joined[::-1])]
        whole = _nearest(group[0], fitting)
        heads = _heads([size[0] for size in sizes])
        if whole is None or heads is None:
            continue
        turned = fused[whole] != joined
        build = _Build(*_stems(template(whole), tuple(map(template, group))), heads)
        found[build] = pattern_of(whole) if turned else found.get(build, "")
    return found


def _sets(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Names that differ in one part, as queries, keys and values do."""
    left = dict.fromkeys(names)
    for members in _PARTS:
        for name in list(left):
            parts = name.split(".")
            if members[0] not in parts or name not in left:
                continue
            at = len(parts) - 1 - parts[::-1].index(members[0])
            group = tuple(".".join([*parts[:at], one, *parts[at + 1 :]]) for one in members)
            if all(one in left for one in group):
                for one in group:
                    del left[one]
                yield group


def _joined(sizes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of the parts one below the other; () of those that do not go together."""
    if not all(sizes) or len({size[1:] for size in sizes}) > 1 or len(sizes[0]) > 2:
        return ()
    return (sum(size[0] for size in sizes), *sizes[0][1:])


def _nearest(name: str, others: Sequence[str]) -> str | None:
    """The one that begins most alike; None where two do."""
    rated = sorted(((_shared(name, other), other) for other in others), reverse=True)
    if not rated or (len(rated) > 1 and rated[0][0] == rated[1][0]):
        return None
    return rated[0][1]


def _shared(one: str, two: str) -> int:
    return len(_front([one, two]))


def _front(names: Sequence[str]) -> list[str]:
    """The parts that all begin with."""
    shared = []
    for parts in zip(*(name.split(".") for name in names), strict=False):
        if len({*parts}) > 1:
            break
        shared.append(parts[0])
    return shared


def _heads(rows: Sequence[int]) -> int | None:
    """How many queries share a key; 0 where all parts are equal, None for other shares."""
    if len({*rows}) == 1:
        return 0
    even = len(rows) == 3 and rows[1] == rows[2] and rows[1] and not rows[0] % rows[1]
    return rows[0] // rows[1] if even else None


def _stems(fused: str, parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Without the last part, where all have the same: one edit for weights and biases."""
    for leaf in _LEAVES:
        if all(name.endswith(leaf) for name in (fused, *parts)):
            return fused.removesuffix(leaf), tuple(part.removesuffix(leaf) for part in parts)
    return fused, parts


def _said(build: _Build) -> Iterator[tuple[str, ...]]:
    """The parts of names that change; and whole beginnings, for where others have the same."""
    names = [build.fused, *build.parts]
    shared = _front(names)
    short = [name.split(".")[len(shared) :] for name in names]
    if all(parts and parts[0] != NUMBER for parts in short):
        yield tuple(lettered(".".join(parts)) for parts in short)
    whole = [lettered(name) for name in names]
    yield (f"^{whole[0]}", *whole[1:])
