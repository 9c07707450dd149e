"""The search: the smallest list of rules after which a file's tensors are those of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.names import Drop
from tensorkeep.matching.catalogue import ADAPTER_ALONE, COMPUTED, COUNTERS, TOLERATED
from tensorkeep.matching.inducing import induce
from tensorkeep.matching.moves import Move, template
from tensorkeep.matching.pairing import Pairs, pair
from tensorkeep.matching.rules import applied, edit_of
from tensorkeep.matching.shifts import off_by_one, shifts, shortest
from tensorkeep.matching.specs import Spec, Specs

_TRIES = 8


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The same tensor by name, of another shape: `name` in the model, `source` in the file."""

    name: str
    source: str
    file: tuple[int, ...]
    model: tuple[int, ...]


@dataclass(slots=True)
class Match:
    """How a file's tensors fit a model's.

    `rules` are edits of names in order, smallest list found, applied and counted before it is
    given out. `names`: for each tensor of the model that is filled with its own shape, the name
    of its source in the file. `missing`, in the model's names, stay as they are; `unexpected`, in
    the names after the rules, go nowhere. `tied` are not in the file and are the same tensor as
    one that is. `tolerated` are counters that torch itself starts at zero. `by_shape_only` pairs
    (file, model) have no more than equal shapes in common, and no rule rests on them.
    `rivals` are rule lists that fit equally well; then `rules` holds none of them. `dequantised`:
    int8 tensors of the file that fit as floats, after the first of the rules.
    """

    rules: list[Edit] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    by_shape_only: list[tuple[str, str]] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    tolerated: list[str] = field(default_factory=list)
    cast: list[str] = field(default_factory=list)
    rivals: list[Edit] = field(default_factory=list)
    dequantised: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tensors: int = 0
    nbytes: int = 0
    filled_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether everything in the file has a place, and every place is filled."""
        left = self.missing or self.unexpected or self.mismatched
        return not left and bool(self.names)

    @property
    def filled(self) -> int:
        """How many tensors of the model the file fills, tied ones included."""
        return len(self.names) + len(self.tied)

    @property
    def coverage(self) -> dict[str, float]:
        """The share of the model's tensors, and of their bytes (ties once), that are filled."""
        return {
            "tensors": self.filled / self.tensors if self.tensors else 0.0,
            "bytes": self.filled_bytes / self.nbytes if self.nbytes else 0.0,
        }


def find(file: Specs, model: Specs, *, rebuilt: Iterable[str] = ()) -> Match:
    """The smallest rule list that fits `file` to `model`, verified, and what it leaves.

    Both are names with dtypes and shapes. `rebuilt` are names that the model makes itself
    (non-persistent buffers): what the file has of them is dropped by rule. Takes time linear in
    the names, but for a bounded number of changes that are tried on all of them.
    """
    made = frozenset(rebuilt)
    match = _find(file, model, made)
    if match.fits:
        return match
    tried = [_shifted(rules, file, model, made) for rules in ([], match.rules)[not match.rules :]]
    shifted = [one for one in tried if one is not None and one.filled > match.filled]
    return min(shifted, key=lambda one: (-one.filled, len(one.rules)), default=match)


def _shifted(
    before: list[Edit], file: Specs, model: Specs, rebuilt: frozenset[str]
) -> Match | None:
    """The match where lists of layers are shifted after the rules `before`; None if none is."""
    names = applied(before, file)
    if not isinstance(names, dict):
        return None
    found = shifts({new: file[old] for new, old in names.items()}, model)
    rules = [*before, *(shift.edit for shift in found)]
    told = applied(rules, file)
    if not found or not isinstance(told, dict):
        return None
    match = _find({new: file[old] for new, old in told.items()}, model, rebuilt)
    match.names = {name: told[source] for name, source in match.names.items()}
    match.mismatched = [replace(one, source=told[one.source]) for one in match.mismatched]
    match.by_shape_only = [(told[name], other) for name, other in match.by_shape_only]
    match.rules = shortest([*rules, *match.rules], found, file)
    match.notes += [shift.told for shift in found if shift.alike]
    return match


def _find(file: Specs, model: Specs, rebuilt: frozenset[str]) -> Match:
    pairs = pair(file, model)
    rules, names = _rules(pairs, file)
    extra = _drops(names, model, rebuilt)
    if extra:
        rules += extra
        told = applied(rules, file)
        names = told if isinstance(told, dict) else names
    match = compare(names, file, model)
    match.rules = rules
    match.notes += pairs.notes + _computed(match, file)
    match.notes += off_by_one(match.unexpected, match.missing, names, model)
    match.rivals = [
        edit for front in pairs.rivals if (edit := edit_of(Move(front.old, front.new, "lead")))
    ]
    sources = {names[name] for name in match.unexpected}
    lacking = set(match.missing)
    match.by_shape_only = [(a, b) for a, b in pairs.weak.items() if a in sources and b in lacking]
    return match


def _rules(pairs: Pairs, file: Specs) -> tuple[list[Edit], dict[str, str]]:
    """Edits, and by each name after them the name before. A rule that collides is left out."""
    goals = pairs.named | pairs.bent
    banned: set[Move] = set()
    for _ in range(_TRIES):
        moves = induce(goals, frozenset(banned))
        edits = [(move, edit_of(move)) for move in moves]
        unsayable = {move for move, edit in edits if edit is None}
        told = applied([edit for _, edit in edits if edit is not None], file)
        if isinstance(told, dict) and not unsayable:
            return [edit for _, edit in edits if edit is not None], told
        banned |= unsayable | {move for move, edit in edits if edit is told}
    return [], {name: name for name in file}


def _drops(names: Mapping[str, str], model: Specs, rebuilt: frozenset[str]) -> list[Edit]:
    """Rules that leave out what needs no place: counters, and buffers that the model makes."""
    kept = [name for name in names if name in model]
    beside = {name.rpartition(".")[0] for name in kept} | {""} if kept else set()
    useless = [
        name for name in names if name not in model and (_counts(name, beside) or name in rebuilt)
    ]
    leaves = {name.rpartition(".")[2] for name in kept}
    builds = {template(name) for name in kept}
    found = {_drop(name, leaves, builds): None for name in useless}
    return list(found)


def _counts(name: str, beside: set[str]) -> bool:
    """A counter of a module that is filled; of another it is no more useless than the rest."""
    module, _, leaf = name.rpartition(".")
    return leaf in COUNTERS and module in beside


def _drop(name: str, leaves: set[str], builds: set[str]) -> Edit:
    """The widest pattern that hits no tensor which is wanted."""
    leaf = name.rpartition(".")[2]
    if leaf not in leaves and leaf in COUNTERS:
        return Drop(f"{leaf}$")
    edit = edit_of(Move(template(name), "", "lead")) if template(name) not in builds else None
    pattern = getattr(edit, "pattern", f"^{name}")
    return Drop(f"{pattern}$")


def compare(names: Mapping[str, str], file: Specs, model: Specs) -> Match:
    """What fills what, by the names after the rules. `names` leads back to those of the file."""
    match = Match(tensors=len(model), unexpected=[name for name in names if name not in model])
    firsts = _firsts(model)
    held: dict[str, str] = {}
    for name, spec in model.items():
        source = names.get(name)
        if source is None:
            continue
        got = file[source]
        if got.shape != spec.shape:
            match.mismatched.append(Mismatch(name, source, got.shape, spec.shape))
            continue
        match.names[name] = source
        held.setdefault(firsts[name], name)
        if got.dtype != spec.dtype:
            match.cast.append(name)
    bent = {one.name for one in match.mismatched}
    for name in model:
        if name in match.names or name in bent:
            continue
        if firsts[name] in held:
            match.tied[name] = held[firsts[name]]
        elif name.rpartition(".")[2] == TOLERATED:
            match.tolerated.append(name)
        else:
            match.missing.append(name)
    own = {first: model[first].nbytes for first in set(firsts.values())}
    match.nbytes = sum(own.values())
    match.filled_bytes = sum(own[first] for first in held)
    return match


def _firsts(model: Mapping[str, Spec]) -> dict[str, str]:
    """For each name the first name of the same tensor."""
    return {
        name: spec.tied_to if spec.tied_to in model and spec.tied_to is not None else name
        for name, spec in model.items()
    }


def _computed(match: Match, file: Iterable[str]) -> list[str]:
    """What is left over of layers that compute their weights, and what to do about it."""
    if not match.names and all(".lora_" in name for name in file):
        return [ADAPTER_ALONE]
    parts = {part for name in match.unexpected for part in name.split(".")[-3:]}
    return list(dict.fromkeys(why for part, why in COMPUTED.items() if part in parts))
