"""What `load_into` did, as words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.registry import table_of
from tensorkeep.errors import DoesNotFit
from tensorkeep.live.policies import CastOf
from tensorkeep.matching.finding import Match, Mismatch
from tensorkeep.matching.hints import Hint
from tensorkeep.matching.report import advice, hinted
from tensorkeep.matching.rules import words
from tensorkeep.matching.telling import because, groups, remedy, suggestions

_LISTED = 6
# Hints in an error's sentence; its report has all of them.
_TOLD = 3


@dataclass(slots=True)
class LoadReport:
    """What became of a module, or of an optimizer.

    `path` and `section` name the source, `target` the class that was loaded into. `rules`: edits
    that were found and applied. `loaded` of `tensors` names were filled, ties included.
    `missing`: the file has none (torch's MISSING); `unexpected`: the module has no place for them;
    `mismatched`: of another shape, skipped; `cast`: what changed its dtype and what that lost.
    `dequantised`: filled with int8 codes of the file times their scales. `tied`: names that are
    the same parameter as one that was filled. `initialised`: names that have no value of the
    file; `by_module` of them got one from their module's own `reset_parameters`, being on the
    meta device. `rebuilt`: non-persistent buffers that were on the meta device and were made
    again. `coverage`: the shares of tensors, of the elements of parameters, and of bytes that
    were overwritten, ties once. `bytes` were read in `seconds`. `hints`: edits that would make more
    of it fit, as `match` gives them (`load_into(recipe=match(...).mended)` applies them).
    """

    path: str
    section: str
    target: str
    rules: list[Edit] = field(default_factory=list)
    tensors: int = 0
    loaded: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    cast: list[CastOf] = field(default_factory=list)
    dequantised: list[str] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    tolerated: list[str] = field(default_factory=list)
    by_module: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    by_shape_only: list[tuple[str, str]] = field(default_factory=list)
    coverage: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lazy: bool = False
    seconds: float = 0.0
    bytes: int = 0
    match: Match | None = field(default=None, repr=False)
    hints: list[Hint] = field(default_factory=list)

    @property
    def initialised(self) -> list[str]:
        """Names of the module that have no value of the file."""
        return [*self.missing, *(one.name for one in self.mismatched)]

    @property
    def fits(self) -> bool:
        """Whether everything in the file had a place, and every place was filled."""
        return not (self.missing or self.unexpected or self.mismatched)

    def sentences(self) -> list[str]:
        """What was loaded and after what; what stays as it was; what was lost."""
        lines = [self._head()]
        if self.initialised:
            lines.append(self._stay())
        if self.unexpected:
            count = len(self.unexpected)
            verb = "tensor of the file goes" if count == 1 else "tensors of the file go"
            lines.append(f"{count} {verb} nowhere: {listed(self.unexpected)}.")
        if self.dequantised:
            lines.append(f"int8 times its scale became floats: {listed(self.dequantised)}.")
        lines += self._casts()
        if self.rebuilt:
            lines.append(f"Made again, being in no file: {listed(self.rebuilt)}.")
        if self.match is not None and not self.fits:
            lines += advice(self.match, self.hints)
        return [*lines, *(f"Note: {note}." for note in self.notes)]

    def _head(self) -> str:
        if not self.tensors:
            return f"Loaded the state of {self.target}, which has no tensors."
        how = "are loaded when they are used" if self.lazy else "loaded"
        head = f"{self.loaded} of {self.tensors} tensors {how}"
        if self.rules:
            head += " after: " + "; ".join(words(edit) for edit in self.rules)
        share = self.coverage.get("bytes", 0.0)
        return f"{head}. {_percent(share)} of the bytes of {self.target}{self._took()}."

    def _took(self) -> str:
        if self.lazy or not self.seconds:
            return ""
        return f", {self.bytes / 1e6:,.1f} MB in {self.seconds:.2f} s"

    def _stay(self) -> str:
        told = []
        if self.missing:
            told.append(f"{listed(self.missing)} (not in the file)")
        for reason, group in groups(self.mismatched).items():
            told.append(f"{listed([one.name for one in group])} ({reason})")
        count = len(self.initialised)
        verb = "stays at its initial value" if count == 1 else "stay at their initial value"
        return f"{count} {verb}: " + ", ".join(told) + "."

    def _casts(self) -> list[str]:
        kinds: dict[tuple[str, str], list[CastOf]] = {}
        for one in self.cast:
            kinds.setdefault((one.file, one.model), []).append(one)
        return [_cast(a, b, group) for (a, b), group in kinds.items()]

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        plain = ("path", "section", "target", "tensors", "loaded", "missing", "unexpected")
        more = (
            "dequantised",
            "tolerated",
            "by_module",
            "rebuilt",
            "coverage",
            "notes",
            "lazy",
            "seconds",
        )
        found = {name: getattr(self, name) for name in (*plain, *more, "bytes", "initialised")}
        return {
            "schema": 1,
            "fits": self.fits,
            **found,
            "rules": [table_of(edit) for edit in self.rules],
            "hints": [hint.to_dict() for hint in self.hints],
            "mismatched": [
                {"name": m.name, "source": m.source, "file": list(m.file), "model": list(m.model)}
                for m in self.mismatched
            ],
            "cast": [one.to_dict() for one in self.cast],
            "tied": [{"name": name, "tied_to": to} for name, to in self.tied.items()],
            "by_shape_only": [{"file": a, "model": b} for a, b in self.by_shape_only],
        }

    def refusal(self, *, shapes: bool, names: bool, floor: float) -> DoesNotFit | None:
        """The error that this is, if names (or shapes) must agree and `floor` must be reached."""
        got = []
        if names and self.missing:
            got.append(f"{len(self.missing)} MISSING in the file: {listed(self.missing)}")
        if names and self.unexpected:
            got.append(f"{len(self.unexpected)} UNEXPECTED: {listed(self.unexpected)}")
        if shapes and self.mismatched:
            told = [
                f"{listed([one.name for one in group])} ({reason})"
                for reason, group in groups(self.mismatched).items()
            ]
            got.append(f"{len(self.mismatched)} MISMATCH in shape: " + ", ".join(told))
        expected = f"the {'tensors' if names else 'shapes'} of {self.target}"
        share = self.coverage.get("bytes", 0.0)
        if not got and share < floor:
            expected = f"{_percent(floor)} of the bytes of {self.target}"
            got.append(f"{_percent(share)}; MISSING: {listed(self.initialised)}")
        if not got:
            return None
        error = DoesNotFit(
            self.path,
            expected=expected,
            got="; ".join(got),
            remedy=self._remedy(names=names),
        )
        error.report = self
        return error

    def _remedy(self, *, names: bool) -> str:
        told = [hinted(hint).rstrip(".") for hint in self.hints[:_TOLD]]
        mended = {name for hint in self.hints for name in hint.mends}
        left = [one for one in self.mismatched if one.name not in mended]
        told += [f"`{one.name}`: {what}" for one in left if (what := remedy(one))][:1]
        if self.match is not None and self.match.rivals:
            rivals = " or ".join(words(edit) for edit in self.match.rivals[:4])
            told.append(f"several rules would fit equally well, and none was taken: {rivals}")
        elif self.match is not None:
            near = {a: b for a, b in suggestions(self.match).items() if a not in mended}
            told += [f"near `{name}` is {listed(found)}" for name, found in near.items()][:1]
        told.append(
            "the recipe `match(...).mended` applies what asks for nothing"
            if any(not hint.asks for hint in self.hints)
            else "`tensorkeep match` says what would fit after which rules"
        )
        if names:
            told.append("strict=False leaves the rest at its initial value")
        text = "; ".join(told)
        return text[0].upper() + text[1:] + "."


def _cast(file: str, model: str, group: Sequence[CastOf]) -> str:
    many = "1 tensor" if len(group) == 1 else f"{len(group)} tensors"
    text = f"{many} cast from {file} to {model}"
    for what, key in (("too large for it", "overflowed"), ("became zero", "underflowed")):
        hit = {one.name: getattr(one, key) for one in group if getattr(one, key)}
        if hit:
            names = listed(sorted(hit, key=lambda name: -hit[name]))
            text += f"; {sum(hit.values()):,} values {what}, in {names}"
    return text + "."


def listed(names: Sequence[str]) -> str:
    """The first few, in backticks."""
    shown = ", ".join(f"`{name}`" for name in names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _percent(share: float) -> str:
    # What is not all must not be rounded to all.
    text = f"{int(share * 1000) / 10:.1f}"
    return f"{text.removesuffix('.0')}%"


def mismatch_words(one: Mismatch) -> str:
    """Why the shapes differ."""
    return because(one)
