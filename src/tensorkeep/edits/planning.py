"""From an inventory to the plan of a file: dtypes, what the format holds, ties, versions, text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from tensorkeep import provenance
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path
from tensorkeep.checkpoints.sections import ALL, FLAT
from tensorkeep.checkpoints.streaming import Output, Values
from tensorkeep.checkpoints.tensor import BLOCK
from tensorkeep.checkpoints.writing import Plan, Target, Versions
from tensorkeep.dtypes import DType
from tensorkeep.edits.arrays import Array
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.values import castable
from tensorkeep.errors import Unwritable
from tensorkeep.formats.contents import Items, sizes
from tensorkeep.stores import Blob

if TYPE_CHECKING:
    from tensorkeep.edits.casting import Tally

_MOST_BYTES = (1 << 63) - 1


def cast_floats(inventory: Inventory, wanted: DType) -> list[str]:
    """Give floating point tensors the dtype `wanted`; the names of those that had another.

    Tied tensors stay tied. Raises `Unwritable` for a dtype that does not cast.
    """
    from tensorkeep.edits.casting import counted

    names = []
    for name, array in inventory.tensors.items():
        if array.dtype is wanted or not array.dtype.is_floating:
            continue
        if not castable(array.dtype, wanted):
            raise Unwritable(
                name,
                expected=f"a dtype that casts to {wanted}",
                got=array.dtype,
                remedy="Leave it out with --skip, or choose another --dtype.",
            )
        inventory.tensors[name] = counted(name, array, wanted)
        names.append(name)
    return names


def tallies(inventory: Inventory, *, refuse: bool) -> list[Tally]:
    """What counts the losses of casts and of computed values.

    With `refuse`, a value that overflows raises `Unwritable`. That is when bytes are made:
    nothing appears then.
    """
    from tensorkeep.edits.casting import tallies as found

    every = found(inventory.tensors)
    for tally in every:
        tally.refuse = refuse
    return every


def outputs(
    inventory: Inventory, target: Target, where: str, *, drop: bool
) -> tuple[dict[str, Output], list[tuple[str, str]]]:
    """What `target` can hold of `inventory`, by name, and what it cannot, with the reason.

    Without `drop` the latter raises `Unwritable`; `where` is the destination, for its message.
    """
    made, bad = {}, {}
    for name, array in inventory.tensors.items():
        _check(name, array)
        made[name] = Output(name, array)
        why = target.problem(made[name].entry)
        if why or any(ref.record.storage.device == "meta" for ref in array.sources()):
            bad[name] = why or "a meta tensor has no values"
    if bad and not drop:
        name, why = next(iter(bad.items()))
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise Unwritable(
            where,
            expected=f"tensors that {target.name} holds",
            got=f"{why}{more}",
            where=name,
            remedy="Leave such tensors out with --drop-unsupported.",
        )
    return {name: output for name, output in made.items() if name not in bad}, list(bad.items())


def _check(name: str, array: Array) -> None:
    for ref in array.sources():
        ref.record.check(ref.name)
    if array.nbytes > _MOST_BYTES or any(size > _MOST_BYTES for size in array.shape):
        raise Unwritable(
            name,
            expected="a shape whose bytes can be counted in 64 bits",
            got=list(array.shape),
            remedy="Make it smaller.",
        )


def plan(
    found: Mapping[str, Output],
    metadata: Mapping[str, str],
    versions: Versions | None,
    tree: object = None,
) -> Plan:
    """The plan that writes `found`, each tied tensor once, in `tree` if there is one."""
    aliases = _ties(found)
    unique = [output for name, output in found.items() if name not in aliases]
    return Plan(unique, list(found), aliases, metadata, versions, tree)


def state_dict_path(section: str) -> Path:
    """Where the state dict of `section` lies."""
    return () if section in (FLAT, ALL) else (section,)


def _ties(found: Mapping[str, Output]) -> dict[str, str]:
    """A name to the one whose bytes are kept: the first in sorted order, as in `save_model`."""
    first: dict[Values, str] = {}
    named = ((name, found[name].values) for name in sorted(found))
    kept = {name: first.setdefault(values, name) for name, values in named}
    return {name: other for name, other in kept.items() if other != name}


def text(ckpt: Checkpoint, names: Mapping[str, object]) -> dict[str, str]:
    """The metadata of `ckpt` that a file with tensors of these `names` goes on with."""
    own = ckpt.contents.aliases
    kept = {key: value for key, value in ckpt.metadata.items() if key not in own | names.keys()}
    if ckpt.format.startswith("sharded"):
        kept.pop("total_size", None)
    return kept


def lineage(
    metadata: Mapping[str, str],
    sources: Sequence[Checkpoint],
    told: Mapping[str, object],
    *,
    digests: bool,
) -> dict[str, str]:
    """`metadata` with a step of lineage: the `sources`, the edited one first, and what is `told`.

    With `digests`, also of each of their files, all of which is read for it.
    """
    first, *others = (_source(ckpt, digests=digests) for ckpt in sources)
    said = {key: value if key == "edits" else str(value) for key, value in told.items() if value}
    return provenance.extended(metadata, first | ({"others": others} if others else {}) | said)


def _source(ckpt: Checkpoint, *, digests: bool) -> dict[str, Any]:
    """Name, files, and a digest of the index."""
    files = [
        provenance.file_facts(blob.name, blob.size, _digest(blob) if digests else "")
        for blob in ckpt.blobs
    ]
    index = (
        (ref.name, ref.dtype, ref.shape, ref.record.stride, ref.record.offset)
        for ref in ckpt.tensors.values()
    )
    return {
        "source": PurePath(ckpt.path).name,
        "files": files,
        "index": provenance.index_digest(index),
    }


def _digest(blob: Blob) -> str:
    import hashlib

    digest = hashlib.sha256()
    for at in range(0, blob.size, BLOCK):
        digest.update(blob.read(at, min(BLOCK, blob.size - at)))
    return digest.hexdigest()


def versions(
    ckpt: Checkpoint, path: Path, inventory: Inventory, before: str = "", now: str = ""
) -> Versions | None:
    """The `_metadata` of the state dict under `path`, if it is what torch writes there.

    Its keys are modules: where an edit renamed a module's tensors, it is the new name. `before`
    and `now` are what stands in front of them in the names of the source and of `inventory`.
    """
    found = ckpt.index.attributes.get(path, {}).get("_metadata")
    if not isinstance(found, Items):
        return None
    plain: dict[str, Any] = {key: value for key, value in found.pairs if _is_version(key, value)}  # type: ignore[misc]
    if len(plain) != len(found.pairs):
        return None
    moved = _moved(inventory)
    return {
        new.removeprefix(now): value
        for key, value in plain.items()
        for new in moved.get(before + key, [now + key])
    }


def _moved(inventory: Inventory) -> dict[str, list[str]]:
    """A module to what it is called now, for those whose tensors were renamed."""
    found: dict[str, dict[str, None]] = {}
    for name in inventory:
        for origin in inventory.origin.get(name, ()):
            old, _, leaf = origin.rpartition(".")
            new, _, now = name.rpartition(".")
            if old and (leaf == now or old != new):
                found.setdefault(old, {})[new] = None
    return {old: [*new] for old, new in found.items() if [*new] != [old]}


def _is_version(key: object, value: object) -> bool:
    if not isinstance(key, str) or not isinstance(value, dict):
        return False
    return all(
        isinstance(k, str) and (sizes((v,)) or isinstance(v, bool | str | None))
        for k, v in value.items()
    )
