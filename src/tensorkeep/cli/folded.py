"""Names that differ in one number written once: `layers.{0..31}.mlp.weight`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# A part of a name that is a number; leading zeros would be lost in a range.
_NUMBER = re.compile(r"(?<![^.])(0|[1-9]\d{0,17})(?![^.])")

# What stands before and behind the number; no behind where there is none.
_Cut = tuple[str, str | None]


def folded(names: Iterable[str]) -> list[str]:
    """`names` in the order of their first, those folded that differ in their first number only."""
    return [row for row, _ in folded_pairs((name, "") for name in names)]


def folded_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same for two names that belong together and have the same first number."""
    groups: dict[tuple[_Cut, ...], list[int]] = {}
    for pair in pairs:
        found = [_NUMBER.search(name) for name in pair]
        numbers = {match[0] for match in found if match}
        if len(numbers) == 1:
            cut = tuple(_cut(name, match) for name, match in zip(pair, found, strict=True))
            groups.setdefault(cut, []).append(int(numbers.pop()))
        else:
            groups[tuple((name, None) for name in pair)] = []
    return [_written(cut, sorted(set(numbers))) for cut, numbers in groups.items()]


def _cut(name: str, match: re.Match[str] | None) -> _Cut:
    return (name[: match.start()], name[match.end() :]) if match else (name, None)


def _written(cut: Sequence[_Cut], numbers: list[int]) -> tuple[str, str]:
    first, second = (
        before if behind is None else before + _range(numbers) + behind for before, behind in cut
    )
    return first, second


def _range(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for value in numbers:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [f"{a}..{b}" if b > a + 1 else ",".join({str(a): 0, str(b): 0}) for a, b in runs]
    return texts[0] if len(numbers) == 1 else "{" + ",".join(texts) + "}"
