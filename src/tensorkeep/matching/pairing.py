"""Which tensor of the file is which tensor of the model, told by names first and shapes second.

A pair is *named* if more than its shape speaks for it: the same name, the same skeleton, or a
common end of names under one change of their beginnings that many tensors share and that no
other change rivals. What rests on shape alone is kept apart and never becomes a rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorkeep.matching.catalogue import AVERAGED
from tensorkeep.matching.fronts import Front, fronts
from tensorkeep.matching.skeletons import skeletons
from tensorkeep.matching.specs import Specs
from tensorkeep.matching.wrappers import align

# A file has a handful of parts that are named differently; more rounds only find chance.
_ROUNDS = 24
# Those refused are still counted, as rivals, up to so many.
_REFUSED = 20
Names = dict[str, tuple[int, ...]]


@dataclass(slots=True)
class Pairs:
    """`named`: file to model, of equal shape. `bent`: the same tensor by name, of another shape.

    `weak`: pairs that only shapes speak for. `rivals`: changes of the beginnings of names that
    would fit equally well, none of which was taken.
    """

    named: dict[str, str] = field(default_factory=dict)
    bent: dict[str, str] = field(default_factory=dict)
    weak: dict[str, str] = field(default_factory=dict)
    rivals: list[Front] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pair(file: Specs, model: Specs) -> Pairs:
    """Pair up the names of both. Linear in their parts, but for the few changes that are tried."""
    found = Pairs()
    found.named = {
        name: name
        for name, spec in file.items()
        if name in model and model[name].shape == spec.shape
    }
    left, right = skeletons(file.keys()), skeletons(model.keys())
    origin_left = {one: name for name, one in left.items()}
    origin_right = {one: name for name, one in right.items()}
    bones_left = {left[n]: s.shape for n, s in file.items() if n not in found.named}
    taken = set(found.named.values())
    bones_right = {right[n]: s.shape for n, s in model.items() if n not in taken}
    search = _Search(bones_left, bones_right, alone=not found.named)
    search.run()
    for target, source in (
        (found.named, search.named),
        (found.bent, search.bent),
        (found.weak, search.weak),
    ):
        target |= {origin_left[a]: origin_right[b] for a, b in source.items()}
    found.rivals, found.notes = search.rivals, search.notes
    return found


class _Search:
    """On skeletons: what is equal, then what is equal behind changed beginnings, round by round."""

    def __init__(self, left: Names, right: Names, *, alone: bool) -> None:
        self.left, self.right, self.alone = left, right, alone
        self.named: dict[str, str] = {}
        self.bent: dict[str, str] = {}
        self.weak: dict[str, str] = {}
        self.rivals: list[Front] = []
        self.notes: list[str] = []
        self.whole = len(left)
        self.accepted = [Front("", "")]

    def run(self) -> None:
        """Fill what it found; `left` and `right` keep what nobody pairs."""
        same = {n: n for n, shape in self.left.items() if self.right.get(n) == shape}
        self._take(same, self.named)
        refused: set[Front] = set()
        for _ in range(_ROUNDS):
            if not self.left or not self.right:
                break
            best = self._best(refused)
            if best is None:
                break
            front, pairs = best
            if self._is_named(front, pairs):
                self.accepted.append(front)
                self._take(pairs, self.named)
            else:
                self._take(pairs, self.weak)
        self._bend()

    def _is_named(self, front: Front, pairs: dict[str, str]) -> bool:
        """Where other numbers were paired as they are, one that changes is the odd one out.

        It would put the last of layers 1 to 4 in the place of the first of layers 0 to 3.
        """
        alone = self.alone and not self.named
        agreed = any(one.explains(front.open) for one in self.accepted[alone:])
        if front != front.open and agreed:
            return False
        return front.is_named(pairs, self.whole, len(self.right))

    def _best(self, refused: set[Front]) -> tuple[Front, dict[str, str]] | None:
        """The change that pairs most, unless another one pairs as many of the same."""
        tried = fronts(self.left, self.right, min(len(refused), _REFUSED))
        for front, pairs in tried:
            if front in refused:
                continue
            # What was refused before is a rival still: else the last of four would win.
            group = [(front, pairs), *(one for one in tried if _rival(pairs, one[1]))]
            if len(group) == 1:
                return front, pairs
            plain = [one for one in group if not AVERAGED.search(one[0].old)]
            if len(plain) == 1 and len({one[0].new for one in group}) == 1:
                kept = ", ".join(f"`{one[0].old}.`" for one in group if one not in plain)
                self.notes.append(f"averaged weights under {kept} were not used")
                return plain[0]
            if self._is_named(front, pairs):
                self.rivals += [one[0] for one in group if one[0] not in self.rivals]
            refused.update(one[0] for one in group)
        return None

    def _take(self, pairs: dict[str, str], into: dict[str, str]) -> None:
        into |= pairs
        for a, b in pairs.items():
            del self.left[a]
            del self.right[b]

    def _bend(self) -> None:
        """Names that agree where shapes do not: a head of another size, most often."""
        for front in self.accepted:
            pairs: dict[str, str] = {}
            filled: set[str] = set()
            for name in self.left:
                new = front.apply(name)
                if new in self.right and new not in filled:
                    pairs[name] = new
                    filled.add(new)
            self._take(pairs, self.bent)
        if not self.named and not self.bent:
            self._take(self._under_wrappers(), self.bent)

    def _under_wrappers(self) -> dict[str, str]:
        """Where not one shape agrees, names that differ in known wrappers: of another width."""
        ours, theirs = align(list(self.left), list(self.right))
        other = dict(zip(theirs.names, self.right, strict=True))
        return {a: other[b] for a, b in zip(self.left, ours.names, strict=True) if b in other}


def _rival(one: dict[str, str], two: dict[str, str]) -> bool:
    """Whether `two` pairs as many, and some of the same names otherwise."""
    if len(two) < len(one) or one == two:
        return False
    if any(name in two and two[name] != to for name, to in one.items()):
        return True
    return any(name not in two for name in one) and not set(one.values()).isdisjoint(two.values())
