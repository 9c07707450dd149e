"""Which checkpoint a directory holds: an index, numbered parts, one file, or a Trainer's folder.

Source: the file names that `transformers` 5, `peft` and `accelerate` use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tensorkeep import formats
from tensorkeep.checkpoints import kinds
from tensorkeep.checkpoints.kept import KeptFolder
from tensorkeep.errors import BadArgument, NotACheckpoint, NotFound, ReadError, StoreError
from tensorkeep.facts import Limits
from tensorkeep.formats import dcp, dcp_shards, sharded, zero
from tensorkeep.formats.contents import Contents, Graft, plain
from tensorkeep.stores import Folder
from tensorkeep.stores.local import LocalFolder
from tensorkeep.stores.local.reading import plain_name

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# In the order in which transformers looks for them.
_USUAL = (
    "model.safetensors",
    "pytorch_model.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)
_TRAINER_STATE = "trainer_state.json"
# Of a step of a run of ours.
_MANIFEST, _STATE = "manifest.json", "state.json"
# What the Trainer of transformers saves beside the weights: file and section.
_TRAINER_SIDES = {
    "optimizer.pt": "optimizer",
    "scheduler.pt": "scheduler",
    "scaler.pt": "scaler",
    "rng_state.pth": "rng_state",
}
_LONGEST_TAG = 256
ReadPart = Callable[[str], Contents]


def find(folder: KeptFolder, wanted: str | None, limits: Limits) -> Contents:
    """The checkpoint in `folder`; `wanted` names the index file if the user did.

    Raises `NotACheckpoint`, `BadArgument` when several could be meant, and what reading raises.
    """
    names = folder.names()

    def read_part(name: str) -> Contents:
        return formats.read(folder.open(name), limits)

    if wanted in (None, dcp.METADATA) and is_whole(folder, names):
        contents = examine_whole(folder, limits)
        if contents.error is not None:
            raise contents.error
        return contents
    if wanted is not None:
        if wanted not in names:
            raise NotFound(f"{folder.name}/{wanted}", got="no such file")
        return sharded.read_index(folder.plain, wanted, read_part, limits)
    if _MANIFEST in names and _STATE in names:
        return _run(folder, read_part)
    weights = _weights(folder.plain, names, read_part, limits)
    return _trainer(folder.plain, names, weights, read_part, limits)


def latest(path: Path) -> Path:
    """The folder below `path` that DeepSpeed's file `latest` in it names, or `path` itself."""
    try:
        with LocalFolder(path).open(zero.LATEST) as blob:
            name = blob.read(0, min(blob.size, _LONGEST_TAG)).decode("utf-8").strip()
        if plain_name(name) and zero.own_files(LocalFolder(path / name).names()):
            return path / name
    except (StoreError, ReadError, ValueError):
        return path
    return path


def is_whole(folder: Folder, names: list[str]) -> list[str]:
    """The files of `folder`, out of `names`, that are one checkpoint together; or none of them."""
    if dcp.METADATA in names:
        own = [name for name in names if name.endswith(dcp.SUFFIX)]
        blob = folder.open(dcp.METADATA)
        if own or dcp.announces(blob.read(0, min(blob.size, formats.HEAD))):
            return [dcp.METADATA, *own]
    return zero.own_files(names)


def examine_whole(folder: Folder, limits: Limits) -> Contents:
    """What a folder holds that is one checkpoint, `Contents.error` included."""
    names = folder.names()
    if dcp.METADATA not in names:
        return zero.read(
            zero.own_files(names), lambda name: formats.examine(folder.open(name), limits)
        )
    return dcp.read(folder, dcp.METADATA, lambda blob: formats.inside(blob, limits), limits)


def _weights(folder: Folder, names: list[str], read_part: ReadPart, limits: Limits) -> Contents:
    indexes = sharded.index_names(names)
    if indexes:
        contents = sharded.read_index(folder, indexes[0], read_part, limits)
        contents.notes += [f"{other} was not used; {indexes[0]} was" for other in indexes[1:]]
        return contents
    pieces = dcp_shards.named(names)
    if pieces:
        parts = {name: read_part(name) for name in pieces}
        if any(dcp_shards.INFO in inside.metadata for inside in parts.values()):
            return dcp_shards.read(parts)
    groups = sharded.numbered(names)
    if len(groups) == 1:
        return sharded.read_numbered(folder, next(iter(groups.values())), read_part)
    return read_part(_single(folder, names))


def _single(folder: Folder, names: list[str]) -> str:
    usual = [name for name in _USUAL if name in names]
    if usual:
        return usual[0]
    found = [name for name in names if name.endswith(_SUFFIXES) and name not in _TRAINER_SIDES]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotACheckpoint(
            folder.name,
            expected="a directory with a checkpoint in it",
            got="an empty one" if not names else ", ".join(names[:5]),
        )
    raise BadArgument(
        folder.name,
        expected="one checkpoint or an index file",
        got=f"{len(found)}: " + ", ".join(found[:5]),
        remedy="Name the file that you mean.",
    )


def _trainer(
    folder: Folder, names: list[str], weights: Contents, read_part: ReadPart, limits: Limits
) -> Contents:
    if _TRAINER_STATE not in names:
        return weights
    root: dict[str, object] = {"model": Graft(weights)}
    parts = {"model": weights}
    for name, section in _TRAINER_SIDES.items():
        if name in names:
            try:
                parts[section] = read_part(name)
            except ReadError as error:
                weights.notes.append(f"{name} was left out: {error}")
                continue
            root[section] = Graft(parts[section])
    root["trainer_state"] = _state(folder, limits)
    return _combine(weights, root, parts)


def _state(folder: Folder, limits: Limits) -> object:
    blob = folder.open(_TRAINER_STATE)
    try:
        text = blob.read(0, min(blob.size, limits.max_json_bytes))
        state = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return "damaged JSON"
    finally:
        blob.close()
    return {k: v for k, v in state.items() if k != "log_history"} if isinstance(state, dict) else {}


def _run(folder: KeptFolder, read_part: ReadPart) -> Contents:
    from tensorkeep.checkpoints import run_contents  # most folders are of no run

    root, parts, writer = run_contents.read(folder.plain, read_part)
    first = next(iter(parts.values()))
    made = _combine(first, root, parts)
    made.facts = {**made.facts, kinds.RUN: writer}
    made.verify = lambda: run_contents.digests(parts, folder.path)
    made.digests = True
    return made


def _combine(weights: Contents, root: dict[str, object], parts: dict[str, Contents]) -> Contents:
    for section, contents in parts.items():
        if section != "model":
            for storage in contents.storages.values():
                storage.key = f"{section}:{storage.key}"
    everything = parts.items()
    return Contents(
        format=weights.format,
        container="directory",
        root=root,
        lens=plain,
        storages={s.key: s for _, c in everything for s in c.storages.values()},
        metadata=weights.metadata,
        facts=weights.facts,
        programs=[(f"{name}: {w}", p) for name, c in everything for w, p in c.programs],
        anomalies=[a for _, c in everything for a in c.anomalies],
        parts=[part for _, c in everything for part in c.parts],
        notes=weights.notes,
        audit=lambda deep: [a for c in parts.values() for a in c.audit(deep)],
        verify=lambda: _verify(parts),
        digests=any(c.digests for c in parts.values()),
    )


def _verify(parts: dict[str, Contents]) -> Iterator[tuple[str, str, str, str]]:
    for section, contents in parts.items():
        # The storages of the other sections were renamed above; here they go by the same names.
        prefix = "" if section == "model" else f"{section}:"
        for file, key, expected, got in contents.verify():
            yield prefix + file, prefix + key if key else "", expected, got
