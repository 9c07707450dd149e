"""What `match` found, as words and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any

from tensorkeep.edits.recipe import Recipe
from tensorkeep.edits.registry import table_of
from tensorkeep.edits.shaping import Tie
from tensorkeep.matching.finding import Match, Mismatch
from tensorkeep.matching.hints import Hint
from tensorkeep.matching.rules import pattern_of, words
from tensorkeep.matching.telling import because, groups, remedy, suggestions

_LISTED = 6


@dataclass(slots=True)
class MatchReport:
    """`path` of the checkpoint, `section` that was taken ("": the file is flat), `against` what.

    `match` says what fits, `hints` what would make more of it fit. Printed, it is a few sentences.
    """

    path: str
    section: str
    against: str
    match: Match
    notes: list[str] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether everything in the file has a place, and every place is filled."""
        return self.match.fits

    @property
    def recipe(self) -> Recipe:
        """The rules, to be written down and applied by others.

        With a tie for each name of the model whose tensor the file has under another one only:
        what it makes then has all the names that `load_state_dict` asks for.
        """
        ties = [Tie(name, to) for name, to in self.match.tied.items()]
        return Recipe((*self.match.rules, *ties), section=self.section or None)

    @property
    def mended(self) -> Recipe:
        """`recipe`, and the edits of those hints that ask for nothing: values change with these."""
        edits = [edit for hint in self.hints if not hint.asks for edit in hint.edits]
        recipe = self.recipe
        kept = len(self.match.rules)
        return replace(recipe, edits=(*recipe.edits[:kept], *edits, *recipe.edits[kept:]))

    @property
    def coverage(self) -> dict[str, float]:
        """The share of the model's tensors and bytes that the file fills."""
        return self.match.coverage

    def sentences(self) -> list[str]:
        """What fits and after what; what stays as it is; what goes nowhere; what to try."""
        match = self.match
        lines = [self._fit()]
        stay = [*match.missing, *(one.name for one in match.mismatched)]
        if stay and match.names:
            lines.append(self._stay(len(stay)))
        if match.tolerated and match.names:
            start = "counter starts" if len(match.tolerated) == 1 else "counters start"
            lines.append(f"{len(match.tolerated)} {start} at zero, as in torch.")
        if match.unexpected and match.names:
            lines.append(f"{_many(match.unexpected)} of the file {_goes(match.unexpected)}.")
        lines += self._unsure()
        return lines

    def _fit(self) -> str:
        match = self.match
        head = f"{match.filled} of {match.tensors} tensors fit"
        if match.rivals and not match.names:
            return f"{head}. {self._rivals()}"
        if not match.names and self.hints:
            return f"{head} by their names alone."
        if not match.names:
            return f"{head}: no rule that was tried makes this file fit {self.against}."
        if not match.rules:
            return f"{head} as they are."
        return f"{head} after: " + "; ".join(words(edit) for edit in match.rules) + "."

    def _rivals(self) -> str:
        told = " or ".join(words(edit) for edit in self.match.rivals[:_LISTED])
        more = ", ..." if len(self.match.rivals) > _LISTED else ""
        return (
            f"Several rules would fit equally well, and none was taken: {told}{more}. "
            "Give the one you mean as an edit, or its section."
        )

    def _stay(self, count: int) -> str:
        match = self.match
        told = []
        if match.missing:
            told.append(f"{_names(match.missing)} (not in the file)")
        for reason, group in groups(match.mismatched).items():
            told.append(f"{_names([one.name for one in group])} ({reason})")
        verb = "stays at its initial value" if count == 1 else "stay at their initial value"
        return f"{count} {verb}: " + ", ".join(told) + "."

    def _unsure(self) -> list[str]:
        match = self.match
        lines = [self._rivals()] if match.rivals and match.names else []
        if match.by_shape_only:
            shown = ", ".join(f"`{a}` as `{b}`" for a, b in match.by_shape_only[:3])
            lines.append(
                f"{len(match.by_shape_only)} would fit by shape alone, which proves nothing: "
                f"{shown}{', ...' if len(match.by_shape_only) > 3 else ''}."
            )
        return lines + advice(match, self.hints)

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        match = self.match
        return {
            "schema": 1,
            "fits": self.fits,
            "path": self.path,
            "section": self.section,
            "against": self.against,
            "rules": [table_of(edit) for edit in match.rules],
            "rivals": [table_of(edit) for edit in match.rivals],
            "missing": match.missing,
            "unexpected": match.unexpected,
            "mismatched": [_mismatch(one) for one in match.mismatched],
            "coverage": match.coverage,
            "tied": [{"name": name, "tied_to": to} for name, to in match.tied.items()],
            "tolerated": match.tolerated,
            "cast": match.cast,
            "dequantised": match.dequantised,
            "by_shape_only": [{"file": a, "model": b} for a, b in match.by_shape_only],
            "hints": [hint.to_dict() for hint in self.hints],
            "suggestions": [{"name": a, "near": b} for a, b in suggestions(match).items()],
            "notes": [*self.notes, *match.notes],
        }


def advice(match: Match, hints: Sequence[Hint]) -> list[str]:
    """What would make more fit, names of the file that are near, and what mends a shape."""
    lines = [hinted(hint) for hint in hints[:_LISTED]]
    mended = {name for hint in hints for name in hint.mends}
    known = mended | {name for pair in match.by_shape_only for name in pair}
    close = {a: b for a, b in suggestions(match).items() if a not in known}
    for name, others in list(close.items())[:_LISTED]:
        lines.append(f"`{name}` is not in the file; near it: {_names(others)}.")
    left = [one for one in match.mismatched if one.name not in mended and remedy(one)]
    return lines + [f"`{one.name}`: {remedy(one)}." for one in left[:_LISTED]]


def _mismatch(one: Mismatch) -> dict[str, Any]:
    return {
        "name": one.name,
        "source": one.source,
        "file": list(one.file),
        "model": list(one.model),
        "why": because(one),
        "remedy": remedy(one),
    }


def hinted(hint: Hint) -> str:
    """What would fit after which edits, why, and what to beware of."""
    edits = " ".join(f"--edit {quote(line)}" for line in hint.lines[:_LISTED])
    builds = list(dict.fromkeys(pattern_of(name)[1:-1] for name in hint.mends))
    builds = list(hint.mends) if len(builds) == len(hint.mends) else builds
    what = f"{_names(builds)} would fit" if builds else "Nothing would be left over of it"
    told = f"{hint.why}; {hint.caution}" if hint.caution else hint.why
    return f"{what} after `{edits}`: {told}."


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _many(names: Sequence[str]) -> str:
    return f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'}"


def _goes(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{'goes' if len(listed) == 1 else 'go'} nowhere: {_names(listed)}"
