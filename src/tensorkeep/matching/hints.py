"""What would mend that which names alone do not: edits, each tried on names and shapes before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.applying import apply
from tensorkeep.edits.arrays import Filled
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.lines import to_line
from tensorkeep.edits.lora import MergeLora
from tensorkeep.edits.registry import table_of
from tensorkeep.edits.shaping import Transpose
from tensorkeep.edits.weight_norm import FoldWeightNorm, UnfoldWeightNorm
from tensorkeep.errors import TensorkeepError
from tensorkeep.matching import projections
from tensorkeep.matching.finding import Match, compare
from tensorkeep.matching.moves import template
from tensorkeep.matching.projections import Projection
from tensorkeep.matching.reshaping import WORDS, edit_for
from tensorkeep.matching.rules import pattern_of
from tensorkeep.matching.specs import Spec, Specs
from tensorkeep.matching.telling import because

# Each is tried on all names.
_TRIED = 24
# Edits of single tensors in a hint: more of them nobody types.
_ALONE = 8
_LORA = ".lora_A."
_NORMS = (("_g", "_v"), ("parametrizations.{}.original0", "parametrizations.{}.original1"))
_ANY = BY_NAME["uint8"]


@dataclass(frozen=True, slots=True)
class Hint:
    """`edits`, after the rules, fill `mends` (names of the model). `why`: what differs.

    `asks` are fields of the edits that only the user can say; they have stand-ins. `caution` is
    what shapes do not show, or "".
    """

    edits: tuple[Edit, ...]
    mends: tuple[str, ...]
    why: str
    asks: tuple[str, ...] = ()
    caution: str = ""

    @property
    def tables(self) -> list[dict[str, Any]]:
        """The edits as a recipe has them, without what is asked."""
        tables = map(table_of, self.edits)
        return [{k: v for k, v in table.items() if k not in self.asks} for table in tables]

    @property
    def lines(self) -> list[str]:
        """Each edit as `convert --edit` takes it; what is asked in capitals."""
        return [_line(edit, self.asks) for edit in self.edits]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "edits": self.tables,
            "mends": list(self.mends),
            "why": self.why,
            "asks": list(self.asks),
            "caution": self.caution,
        }


def _line(edit: Edit, asks: Sequence[str]) -> str:
    line = to_line(edit)
    for name in asks:
        line = re.sub(rf"(?<= ){name}=\S+", f"{name}={name.upper()}", line)
    return line


def hints(match: Match, file: Specs, model: Specs) -> list[Hint]:
    """What would fill more of `model` after the rules of `match`; only what does is given out."""
    if match.fits or not file:
        return []
    trial = _Trial(match, file, model)
    if trial.ready is None:
        return []
    found = [*_by_shape(match, trial), *_by_parts(match, trial), *_norms(match, trial)]
    return [*found, *_adapters(match, trial)]


class _Trial:
    """Edits tried on what the rules leave."""

    def __init__(self, match: Match, file: Specs, model: Specs) -> None:
        self.model, self.filled = model, match.names.keys()
        self.left = _TRIED
        self.ready = self._after(_inventory(file), match.rules)

    def _after(self, inventory: Inventory, edits: Sequence[Edit]) -> Inventory | None:
        try:
            apply(inventory, edits)
        except TensorkeepError:
            return None
        return inventory

    def shapes(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Of tensors that are there after the rules."""
        held = self.ready.tensors if self.ready else {}
        return {name: held[name].shape for name in names if name in held}

    def mends(self, edits: Sequence[Edit]) -> tuple[str, ...]:
        """The names of the model that `edits` fill; none if they cannot be applied, or harm."""
        match = self.after(edits)
        names = match.names if match else ()
        return tuple(name for name in names if name not in self.filled)

    def good(self, edits: list[Edit]) -> tuple[list[Edit], tuple[str, ...]]:
        """All of them, or if one stands in the way those that do not, and what they mend."""
        if mends := self.mends(edits):
            return edits, mends
        some = [edit for edit in edits if self.mends([edit])]
        return some, self.mends(some)

    def after(self, edits: Sequence[Edit]) -> Match | None:
        """How it fits after `edits`; None if they cannot be applied, or empty what was filled."""
        self.left -= 1
        if self.left < 0 or self.ready is None:
            return None
        made = self._after(self.ready.copy(), edits)
        if made is None:
            return None
        after = {name: Spec(str(a.dtype), a.shape) for name, a in made.tensors.items()}
        match = compare({name: name for name in after}, after, self.model)
        return match if self.filled <= match.names.keys() else None


def _inventory(file: Specs) -> Inventory:
    """Tensors of these shapes, none of which anybody reads."""
    made = {n: Filled(BY_NAME.get(spec.dtype, _ANY), spec.shape, 0) for n, spec in file.items()}
    return Inventory("the file", dict(made))


def _by_shape(match: Match, trial: _Trial) -> Iterator[Hint]:
    """Mismatches: one hint for those of one kind, with an edit for each build of names."""
    kinds: dict[tuple[type, str], tuple[dict[Edit, None], dict[Edit, None]]] = {}
    for one in match.mismatched:
        edit = edit_for(one.name, one.file, one.model, pattern_of(one.name))
        alone = edit_for(one.name, one.file, one.model, f"^{one.name}$")
        if edit is not None and alone is not None:
            why = "transposed" if isinstance(edit, Transpose) else because(one)
            builds, singles = kinds.setdefault((type(edit), why), ({}, {}))
            builds[edit] = singles[alone] = None
    for (kind, why), (builds, singles) in kinds.items():
        good, mends = trial.good(list(builds))
        if not mends:  # other layers of a Sequential are called alike, and are of another kind
            good, mends = trial.good(list(singles)[:_ALONE])
        if mends:
            caution = _squares(mends, match, trial) if kind is Transpose else ""
            yield Hint(tuple(good), mends, why, caution=caution)


def _squares(mends: Iterable[str], match: Match, trial: _Trial) -> str:
    """Square weights beside transposed ones fit either way round, and are as likely transposed."""
    fronts = {_front(name) for name in mends}
    found: dict[str, list[str]] = {}
    squares = (
        name
        for name in match.names
        if _front(name) in fronts and not WORDS.search(name)
        if len(shape := trial.model[name].shape) == 2 and shape[0] == shape[1] > 1
    )
    for name in squares:
        found.setdefault(pattern_of(name)[1:-1], []).append(name)
    if not found:
        return ""
    shown = sorted(of[0] if len(of) == 1 else build for build, of in found.items())
    told = ", ".join(f"`{one}`" for one in shown[:4])
    return f"square weights do not show which way they lie, so look at {told} too"


def _front(name: str) -> str:
    """What stands before the first number: the list of layers that it is in."""
    return template(name).partition("\0")[0]


def _by_parts(match: Match, trial: _Trial) -> Iterator[Hint]:
    over, wanted = trial.shapes(match.unexpected), _shapes(match.missing, trial.model)
    for said in projections.splits(over, wanted):
        yield from _projection(said, trial, "one in the file and several in the model")
    for said in projections.fusions(over, wanted):
        yield from _projection(said, trial, "one in the model and several in the file")


def _projection(said: Sequence[Projection], trial: _Trial, why: str) -> Iterator[Hint]:
    tried = [(one, trial.mends(one.edits)) for one in said]
    one, mends = max(tried, key=lambda pair: len(pair[1]))
    if mends:
        layout = (
            "this is head by head, as in GPT-NeoX and BLOOM; Falcon has layout grouped"
            if one.by_head
            else "this is all rows of one part, then all of the next"
        )
        why = f"`{one.fused.strip('^$')}` is {why}"
        caution = f"shapes do not show its layout: {layout}"
        yield Hint(one.edits, mends, why, ("heads",) * one.by_head, caution)


def _norms(match: Match, trial: _Trial) -> Iterator[Hint]:
    edit = FoldWeightNorm()
    normed = any(name.endswith(("_g", ".original0")) for name in match.unexpected)
    if normed and (mends := trial.mends([edit])):
        yield Hint((edit,), mends, "weight norm in the file, none in the model")
    found: dict[Edit, None] = {}
    over, wanted = trial.shapes(match.unexpected), _shapes(match.missing, trial.model)
    for name in over:
        stem, dot, own = name.rpartition(".")
        for at, (first, second) in enumerate(_NORMS):
            ends = [own + end if end[0] == "_" else end.format(own) for end in (first, second)]
            size = wanted.get(stem + dot + ends[0])
            if size is not None and stem + dot + ends[1] in wanted:
                dim = next((at for at, one in enumerate(size) if one != 1), 0)
                found[UnfoldWeightNorm(pattern_of(name), dim, bool(at))] = None
    good, mends = trial.good(list(found)) if found else ([], ())
    if mends:
        yield Hint(tuple(good), mends, "weight norm in the model, none in the file")


def _adapters(match: Match, trial: _Trial) -> Iterator[Hint]:
    """Adapters that the file carries beside its weights; alpha is not in any tensor."""
    adapted = [name for name in match.unexpected if _LORA in name]
    for name in sorted({name.partition(_LORA)[2].rpartition(".")[0] for name in adapted}):
        for turned in (False, True):
            edit = MergeLora(alpha=1.0, name=name, fan_in_fan_out=turned)
            after = trial.after([edit])
            if after is not None and not any(_LORA in left for left in after.unexpected):
                mends = tuple(one for one in after.names if one not in trial.filled)
                why = f"LoRA adapter{f' `{name}`' if name else ''} beside the weights"
                yield Hint((edit,), mends, why, ("alpha",), "alpha is lora_alpha of its settings")
                break


def _shapes(names: Iterable[str], specs: Specs) -> dict[str, tuple[int, ...]]:
    return {name: specs[name].shape for name in names}
