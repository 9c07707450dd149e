"""Lists whose numbers begin elsewhere: a module was put before them, or they are counted from 1.

Equal names mislead there: layers 1 to 11 of the one are other layers of the other. A shift is
taken only if all tensors of the list have a partner then, of equal shape and of the same name
within its layer, and if no other shift would do as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.names import Rename, Strip
from tensorkeep.errors import BadArgument
from tensorkeep.matching.moves import NUMBER, numbers, template
from tensorkeep.matching.rules import applied
from tensorkeep.matching.skeletons import skeletons
from tensorkeep.matching.specs import Specs

# Numbers in the names of layers, so as not to be led astray by what is no number of a layer.
_DIGITS = 10
_DEEPEST = 4
_LETTERS = "mabcdefghijkl"

# Numbers before the list's own, its own, what follows it.
_Place = tuple[tuple[str, ...], int, str]


@dataclass(slots=True)
class _List:
    """The tensors of modules that are numbered behind `front`, in which other numbers are open."""

    front: str
    shapes: dict[_Place, tuple[int, ...]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(number for _, number, _ in self.shapes)

    @property
    def count(self) -> int:
        return len({number for _, number, _ in self.shapes})

    @property
    def build(self) -> frozenset[tuple[_Place, tuple[int, ...]]]:
        """What it is made of, from whatever number it is counted."""
        first = self.first
        return frozenset(
            ((before, at - first, behind), shape)
            for (before, at, behind), shape in self.shapes.items()
        )

    def moved(self, by: int) -> dict[str, str]:
        """Its names with the number shifted."""
        made = {}
        for name, open_name in self.names.items():
            front, _, rest = name.removeprefix(open_name).partition(".")
            made[name] = f"{open_name}{int(front) + by}{'.' if rest else ''}{rest}"
        return made

    @property
    def alike(self) -> bool:
        """Whether all layers look the same, so that any could be any other by its shapes."""
        layers: dict[tuple[tuple[str, ...], int], set[object]] = {}
        for (before, at, behind), shape in self.shapes.items():
            layers.setdefault((before, at), set()).add((behind, shape))
        return len({frozenset(layer) for layer in layers.values()}) == 1


@dataclass(frozen=True, slots=True)
class Shift:
    """`edit` shifts the numbers of a list; `alike`: by their shapes its layers could be others."""

    edit: Rename
    alike: bool

    @property
    def told(self) -> str:
        """What it rests on, for the user."""
        return (
            f"`{self.edit.pattern}` to `{self.edit.to}` rests on the number of layers alone: "
            "all have the same shapes, so compare outputs"
        )


def shifts(file: Specs, model: Specs) -> list[Shift]:
    """The shifts after which lists of `file` are those of `model`, tensor for tensor."""
    ours, theirs = _lists(file), _lists(model)
    builds: dict[object, list[_List]] = {}
    for one in theirs:
        builds.setdefault(one.build, []).append(one)
    found: dict[int, list[_List]] = {}
    for one in ours:
        target = _target(one, builds.get(one.build, []))
        if target is not None:
            found.setdefault(target.first - one.first, []).append(one)
    return [
        Shift(edit, any(one.alike for one in covered))
        for by, lists in found.items()
        for edit, covered in _edits(lists, by, file)
    ]


def _target(one: _List, others: list[_List]) -> _List | None:
    """The one shift that is possible: none, where two are, or none is needed."""
    last = one.front.rpartition(".")[2]
    same = [other for other in others if other.front.rpartition(".")[2] == last] or others
    starts = {other.first for other in same}
    return same[0] if len(starts) == 1 and one.first not in starts else None


def _lists(names: Specs) -> list[_List]:
    """All of two layers or more."""
    found: dict[str, _List] = {}
    bones = skeletons(names.keys())
    for name, spec in names.items():
        parts = name.split(".")
        places = [at for at, part in enumerate(parts) if _is_number(part)]
        bone = bones[name] if len(numbers(bones[name])) == len(places) else name
        inner = [at for at, part in enumerate(bone.split(".")) if _is_number(part)]
        if len(inner) != len(places):
            continue
        for at, within in zip(places[:_DEEPEST], inner, strict=False):
            before = ".".join(parts[:at])
            one = found.setdefault(template(before), _List(template(before)))
            place = (
                tuple(part for part in parts[:at] if _is_number(part)),
                int(parts[at]),
                ".".join(bone.split(".")[within + 1 :]),
            )
            one.shapes[place] = spec.shape
            one.names[name] = f"{before}." if before else ""
    return [one for one in found.values() if one.count > 1]


def _is_number(part: str) -> bool:
    plain = part.isascii() and part.isdigit() and len(part) < _DIGITS
    return plain and (part == "0" or part[0] != "0")


def _edits(lists: list[_List], by: int, file: Specs) -> Iterator[tuple[Rename, list[_List]]]:
    """The fewest and shortest renames that shift these lists and nothing else."""
    wanted: dict[str, set[str]] = {}
    for one in lists:
        for name, new in one.moved(by).items():
            wanted.setdefault(name, set()).add(new)
    left = list(lists)
    while left:
        one = left[0]
        for edit in _patterns(one.front, by):
            changed = _changed(edit, file)
            covers = one.names.keys() <= changed.keys()
            if covers and all(new in wanted.get(name, ()) for name, new in changed.items()):
                covered = [each for each in left if each.names.keys() <= changed.keys()]
                yield edit, covered
                left = [each for each in left if each not in covered]
                break
        else:
            left.remove(one)


def _patterns(front: str, by: int) -> Iterator[Rename]:
    parts = front.split(".") if front else []
    for size in range(1 if parts else 0, len(parts) + 1):
        tail = parts[len(parts) - size :]
        whole = size == len(parts)
        if tail.count(NUMBER) > len(_LETTERS) or (tail and tail[0] == NUMBER and not whole):
            continue
        letters = iter(_LETTERS)
        text = "".join(f"{{{next(letters)}}}." if part == NUMBER else f"{part}." for part in tail)
        try:
            yield Rename(f"{text}{{n}}", f"{text}{{n{by:+}}}")
            if whole:
                yield Rename(f"^{text}{{n}}", f"{text}{{n{by:+}}}")
        except BadArgument:
            continue


def _changed(edit: Rename, file: Specs) -> dict[str, str]:
    """The names that it changes and what to; of one that cannot be applied, none."""
    told = applied([edit], file)
    return {old: new for new, old in told.items() if new != old} if isinstance(told, dict) else {}


def shortest(rules: list[Edit], found: Sequence[Shift], file: Specs) -> list[Edit]:
    """`rules` with a shift inside another rename where that does the same: one rule less."""
    goal = applied(rules, file)
    for shift in found:
        rest = [rule for rule in rules if rule is not shift.edit]
        tried = (one for one in _merged(rest, shift.edit) if applied(one, file) == goal)
        rules = next(tried, rules)
    return rules


def _merged(rules: list[Edit], shift: Rename) -> Iterator[list[Edit]]:
    number = shift.to[shift.to.rindex("{n") :]
    for at, rule in enumerate(rules):
        if isinstance(rule, Rename) and rule.to and not {*"{*$"} & {*rule.pattern}:
            one = Rename(f"{rule.pattern}.{{n}}", f"{rule.to}.{number}")
            yield [*rules[:at], one, *rules[at + 1 :]]
        elif isinstance(rule, Strip) and shift.pattern.startswith(rule.prefix):
            one = Rename(f"^{shift.pattern}", shift.to.removeprefix(rule.prefix))
            yield [*rules[:at], one, *rules[at + 1 :]]


def off_by_one(
    unexpected: Iterable[str], missing: Iterable[str], names: Iterable[str], model: Iterable[str]
) -> list[str]:
    """Where both sides number layers from different numbers, and no shift was taken.

    `unexpected` of the file's `names` and `missing` of the `model`'s have no partner.
    """
    file, wanted = _numbered(names), _numbered(model)
    fronts = _numbered(unexpected).keys() & _numbered(missing).keys()
    return [
        f"`{front}` is numbered from {min(file[front])} in the file and from {min(wanted[front])} "
        "in the model: layers of the same number may be others, so compare outputs"
        for front in sorted(fronts)
        if min(file[front]) != min(wanted[front])
        and all(map(_is_run, (file[front], wanted[front])))
    ]


def _numbered(names: Iterable[str]) -> dict[str, set[int]]:
    """By what stands before a number, with `{n}` for it, the numbers that stand there."""
    found: dict[str, set[int]] = {}
    for name in names:
        parts = name.split(".")
        for at, part in enumerate(parts):
            if _is_number(part):
                found.setdefault(".".join([*parts[:at], "{n}"]), set()).add(int(part))
    return found


def _is_run(numbers: set[int]) -> bool:
    return len(numbers) > 1 and max(numbers) - min(numbers) + 1 == len(numbers)
