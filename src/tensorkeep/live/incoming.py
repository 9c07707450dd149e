"""What comes out of a checkpoint for a module: its tensors after edits, other values, versions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import name_of
from tensorkeep.checkpoints.sections import ALL, FLAT
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.edits.applying import apply
from tensorkeep.edits.arrays import Array, Stored
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import BadArgument, NothingSelected, Unsupported
from tensorkeep.facts import Limits
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Graft, Inert, Items, Lens, TensorRecord
from tensorkeep.live import compounds
from tensorkeep.live.devices import HOST
from tensorkeep.live.nesting import Nest
from tensorkeep.live.sharing import Sharing
from tensorkeep.matching.specs import Spec, specs_of

Source = TensorRef | Array
Raw = tuple[object, Lens]


@dataclass(slots=True)
class Incoming:
    """`sources` are tensors by name, after edits; `loose` what else stands beside them.

    `versions`: of the modules that wrote them, by the names of modules in the file. `origin`: for
    a name after edits, the one in the file.
    """

    ckpt: Checkpoint
    section: str
    sources: dict[str, Source]
    loose: dict[str, Raw] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, object]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def specs(self) -> dict[str, Spec]:
        """Dtypes and shapes by name; ties told."""
        refs = {n: s for n, s in self.sources.items() if isinstance(s, TensorRef)}
        found = specs_of(refs)
        if len(refs) < len(self.sources):
            first: dict[Array, str] = {}
            for name, array in self.sources.items():
                if not isinstance(array, TensorRef):
                    kept = first.setdefault(array, name)
                    tie = None if kept == name else kept
                    found[name] = Spec(array.dtype.name, array.shape, tie)
        for name, (raw, lens) in self.loose.items():
            value = lens(raw)
            if isinstance(value, Compound) and value.dtype and compounds.can_build(value):
                found[name] = Spec(value.dtype.name, value.shape)
        return found


def incoming(
    ckpt: Checkpoint,
    section: str | None,
    edits: Sequence[Edit],
    subject: str,
    values: Iterable[str] = (),
) -> Incoming:
    """What `section` (None: the weights) of `ckpt` holds, after `edits`.

    `values`: names of the module whose values are no tensors; tensors inside such a value of the
    file belong to it, and are none of the module's.

    Raises `SelectionError`, `NothingSelected` where that is no tensor, and what edits raise.
    """
    name, notes = ckpt.choose(section)
    refs = dict(ckpt.select(name))
    found = Incoming(ckpt, name, refs, notes=notes)  # type: ignore[arg-type]
    if ckpt.index.leaves:
        found.loose = {
            key: (raw, lens)
            for key, raw, lens in entries(ckpt, name)
            if not isinstance(lens(raw), TensorRecord)
        }
        _leave_inside(refs, found.loose, {value.rpartition(".")[2] for value in values})
    if edits:
        inventory = Inventory.of(ckpt.path, refs)
        apply(inventory, edits)
        found.sources = {n: _plain(array) for n, array in inventory.tensors.items()}
        found.origin = {n: old[0] for n, old in inventory.origin.items() if old}
        found.notes += inventory.notes
    found.versions = versions(ckpt, name)
    if not found.sources and not found.loose:
        what = f"none in section {name!r}" if name else "none in the file"
        raise NothingSelected(
            ckpt.path,
            expected=f"tensors for {subject}",
            got="none after the edits" if refs else what,
            remedy="List the names with: tensorkeep inspect --tensors.",
        )
    return found


def _leave_inside(refs: dict[str, TensorRef], loose: Iterable[str], kinds: set[str]) -> None:
    """Take the tensors out that are parts of values of the `kinds`, the last parts of names."""
    whole = [f"{name}." for name in loose if name.rpartition(".")[2] in kinds]
    for name in list(refs) if whole else ():
        if name.startswith(tuple(whole)):
            del refs[name]


def _plain(array: Array) -> Source:
    return array.ref if isinstance(array, Stored) else array


def entries(ckpt: Checkpoint, section: str) -> Iterator[tuple[str, object, Lens]]:
    """Keys and raw values directly in the section, with the lens that they are seen through."""
    found: Raw = (ckpt.contents.root, ckpt.contents.lens)
    path = () if section in (FLAT, ALL) else (section,)
    inside = at_path(found, path)
    yield from ((str(key), raw, lens) for key, raw, lens in _pairs(inside) if inside)


def at_path(start: Raw, path: Iterable[object]) -> Raw | None:
    """What lies under the keys of `path`, or None."""
    now: Raw | None = start
    for key in path:
        now = next(((raw, lens) for name, raw, lens in _pairs(now) if name == key), None)
        if now is None:
            return None
    return now


def _pairs(raw: Raw | None) -> Iterator[tuple[object, object, Lens]]:
    if raw is None:
        return
    value, lens = raw[1](raw[0]), raw[1]
    if isinstance(value, Graft):
        lens = value.contents.lens
        value = lens(value.contents.root)
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(value, Items):
        pairs = value.pairs
    elif isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    yield from ((key, child, lens) for key, child in pairs)


def versions(ckpt: Checkpoint, section: str) -> dict[str, dict[str, object]]:
    """The `_metadata` of the state dict: what each module's own code said of its layout."""
    path = () if section in (FLAT, ALL) else (section,)
    found = ckpt.index.attributes.get(path, {}).get("_metadata")
    pairs = found.pairs if isinstance(found, Items) else ()
    return {
        key: {str(k): v for k, v in value.items() if isinstance(v, int | str | bool | None)}
        for key, value in pairs
        if isinstance(key, str) and isinstance(value, dict)
    }


def built(wanted: Mapping[str, Raw], limits: Limits, ckpt: Checkpoint) -> dict[str, object]:
    """Values as `torch.load` would give them. Raises `Unsupported` for what only running makes."""
    sharing = Sharing(HOST, None)

    def compound(value: Compound, path: tuple[object, ...]) -> object:
        if compounds.can_build(value):
            return compounds.build(value, name_of(path), limits, ckpt.path)
        return compounds.bare_storage(value)

    nest = Nest(
        lambda record, path: sharing.tensor(record, name_of(path)),
        compound,
        ckpt,
        limits,
    )
    made = {name: nest.build(raw, lens) for name, (raw, lens) in wanted.items()}
    for name, value in made.items():
        refuse_inert(value, name, ckpt.path)
    sharing.read(mapped=False)
    return made


def refuse_inert(value: object, name: str, subject: str) -> None:
    """Raises `Unsupported` if an object that only running the file would make is in `value`."""
    todo, seen = [value], set()
    while todo:
        item = todo.pop()
        if isinstance(item, Inert):
            raise Unsupported(
                subject,
                expected="plain values and tensors",
                got=item.why or "an object",
                where=name,
                remedy="It would take running the file; save plain values instead.",
            )
        if id(item) in seen or not isinstance(item, dict | list | tuple | set | frozenset):
            continue
        seen.add(id(item))
        todo += item.values() if isinstance(item, dict) else item


def all_edits(recipe: object, edits: object) -> tuple[tuple[Edit, ...], str | None]:
    """The edits of a recipe (a path, a `Recipe`), then `edits`; and the recipe's section.

    Raises `BadArgument` and what reading a recipe raises.
    """
    from tensorkeep.edits.recipe import Recipe, read_recipe

    if isinstance(edits, str | bytes) or not isinstance(edits, Iterable):
        raise BadArgument("edits", expected="a list of edits", got=repr(edits))
    if recipe is None:
        return tuple(edits), None
    if not isinstance(recipe, Recipe | str | os.PathLike):
        raise BadArgument("recipe", expected="a path or a Recipe", got=repr(recipe))
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    return (*read.edits, *edits), read.section
