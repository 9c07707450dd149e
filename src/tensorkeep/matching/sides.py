"""Two checkpoints made comparable: their tensors and other values under names that both share.

Wrappers that one side has and the other has not are taken off, and optimizer state goes by the
names of its parameters where both files let them be known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path, name_of, names
from tensorkeep.checkpoints.kinds import STATE_DICT, WHOLE_MODEL
from tensorkeep.checkpoints.optimizers import Names, parameter_names
from tensorkeep.checkpoints.sections import ALL, FLAT, inner_path
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.errors import NameCollision, SelectionError, UnknownSection, Unsupported
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Inert
from tensorkeep.matching.wrappers import align

_OF_THE_CONTAINER = frozenset({"total_size"})


@dataclass(slots=True)
class Side:
    """What is compared of one checkpoint, by shared names.

    `values` is what is no tensor. `unread` are names and reasons of what cannot be compared,
    `dropped` the wrappers that its names were freed of.
    """

    ckpt: Checkpoint
    section: str
    tensors: dict[str, TensorRef] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sides(a: Checkpoint, b: Checkpoint, section: str | None) -> tuple[Side, Side]:
    """Both sides of a comparison of `section`: a top-level part, "all", or None.

    None compares everything of two files that are more than state dicts and of one kind, else the
    weights of both. A named section may be missing from a file that has no sections: then that
    file's tensors stand against it. Raises `SelectionError` and `Unsupported`.
    """
    if section is None and a.kind == b.kind and a.kind not in (STATE_DICT, WHOLE_MODEL):
        section = ALL
    left, right = (_chosen(ckpt, section) for ckpt in (a, b))
    _align(left, right)
    for side in (left, right):
        _take_values(side, metadata=bool(a.metadata and b.metadata) or a.format == b.format)
    return left, right


def _chosen(ckpt: Checkpoint, section: str | None) -> Side:
    try:
        name, notes = ckpt.choose(section)
    except UnknownSection:
        if FLAT not in ckpt.parts:
            raise
        name, notes = FLAT, [f"{ckpt.path} has no sections: all of it was taken"]
    side = Side(ckpt, name, notes=list(notes))
    if name not in (ALL, FLAT):
        others = [s for s in ckpt.sections if s.name != name]
        side.notes += [
            f"not compared: section {s.name!r} of {s.tensors} tensors in {ckpt.path}"
            for s in others
            if section is None
        ]
    return side


def _align(left: Side, right: Side) -> None:
    """Fill `tensors` of both, group by group: a wrapper stands before all names of one part."""
    known = _parameters(left), _parameters(right)
    # A number on one side would never equal a name on the other.
    both = known[0].keys() & known[1].keys()
    groups = [
        _groups(side, {path: one[path] for path in both})
        for side, one in zip((left, right), known, strict=True)
    ]
    for lead in {**groups[0], **groups[1]}:
        named = [group.get(lead, {}) for group in groups]
        ways = align(list(named[0]), list(named[1]))
        for side, refs, way in zip((left, right), named, ways, strict=True):
            side.dropped += [what for what in way.dropped if what not in side.dropped]
            for name, ref in zip(way.names, refs.values(), strict=True):
                _put(side.tensors, f"{lead}{name}", ref, side.ckpt)


def _parameters(side: Side) -> dict[Path, Names]:
    if side.section != ALL:
        return {}
    ckpt = side.ckpt

    def weights() -> dict[str, TensorRef]:
        try:
            return ckpt.select(ckpt.choose(None)[0], strict=False)
        except (SelectionError, Unsupported):
            return {}  # names that the optimizer itself saved are known without

    return parameter_names(ckpt.index, weights)


def _groups(side: Side, known: dict[Path, Names]) -> dict[str, dict[str, TensorRef]]:
    """The tensors by what stands before their names in one part, then by the rest of the name."""
    ckpt = side.ckpt
    groups: dict[str, dict[str, TensorRef]] = {}
    paths = dict(zip(map(id, ckpt.tensors.values()), ckpt.index.tensors, strict=True))
    for name, ref in ckpt.select(side.section).items():
        path = paths[id(ref)][0]
        parameter = _parameter(path, known)
        if parameter is not None:
            lead, rest = name_of(path[:-2]) + ".", f"{parameter}.{path[-1]}"
        else:
            lead, rest = _cut(name, ref.section if side.section == ALL else FLAT)
        _put(groups.setdefault(lead, {}), rest, ref, ckpt)
    for name, ref in _parts(side):
        lead, rest = _cut(name, ref.section if side.section == ALL else FLAT)
        _put(groups.setdefault(lead, {}), rest, ref, ckpt)
    return groups


def _put(refs: dict[str, TensorRef], name: str, ref: TensorRef, ckpt: Checkpoint) -> None:
    """A parameter may have the name that another tensor has: one of them would be lost."""
    if name in refs:
        raise NameCollision(
            ckpt.path,
            expected="a name of its own for each tensor",
            got=f"two tensors that would be compared as {name!r}",
            remedy="Compare one part at a time with --section.",
        )
    refs[name] = ref


def _parameter(path: Path, known: dict[Path, Names]) -> str | None:
    if len(path) < 3 or path[-3] != "state":
        return None
    return known.get(path[:-3], {}).get(path[-2])


def _cut(name: str, section: str) -> tuple[str, str]:
    lead = f"{section}."
    if section == FLAT or not name.startswith(lead):
        return "", name
    return lead, name[len(lead) :]


def _parts(side: Side) -> Iterator[tuple[str, TensorRef]]:
    """The tensors that sparse, quantised and other compound ones are made of."""
    for name, value in _leaves(side):
        if isinstance(value, Compound):
            for key, record in value.parts.items():
                section = name.partition(".")[0] if side.section == ALL else side.section
                yield f"{name}.{key}", TensorRef(f"{name}.{key}", record, section)


def _leaves(side: Side) -> Iterator[tuple[str, object]]:
    """What lies in the section and is no tensor, by its name inside it."""
    section, parts = side.section, side.ckpt.parts
    chosen = []
    for path, value in side.ckpt.index.leaves:
        top = str(path[0]) if path else FLAT
        if section in (ALL, top) or (section == FLAT and top not in parts):
            chosen.append((inner_path(path, section), value))
    shown = names([path for path, _ in chosen], side.ckpt.path, strict=False)
    yield from zip(shown, (value for _, value in chosen), strict=True)


def _take_values(side: Side, *, metadata: bool) -> None:
    for name, value in _leaves(side):
        if isinstance(value, Inert) and value.unread and not isinstance(value, Compound):
            side.unread[name] = value.why
        else:
            side.values[name] = value
    if metadata and side.section in (ALL, FLAT):
        own = side.ckpt.contents.aliases | _OF_THE_CONTAINER
        for key, text in side.ckpt.metadata.items():
            if key not in own:
                side.values[f"metadata.{key}"] = text
