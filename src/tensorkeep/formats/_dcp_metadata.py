"""`.metadata` of a torch.distributed.checkpoint folder: what the pickle in it says.

Source: torch 2.13 `torch/distributed/checkpoint/metadata.py` (Metadata, TensorStorageMetadata,
ChunkStorageMetadata, MetadataIndex), `filesystem.py` (_StorageInfo) and `_nested_dict.py` (the
planner's paths). Those classes are dataclasses: their state is a dict of their fields. Since
version 1.12 they were `torch.distributed._shard.checkpoint.metadata`; fields were only added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.errors import Amplified, Damaged, ReadError
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats._values import size_of
from tensorkeep.formats.contents import sizes
from tensorkeep.pickles import Call, Global, Program, describe, run

_PACKAGES = ("torch.distributed.checkpoint.", "torch.distributed._shard.")
_MOST_CODECS = 16
Shape = tuple[int, ...]
Path = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item's bytes lie: `length` of them at `offset` of `file`.

    `transforms` are the names of the codecs that the stream went through, the last one first.
    """

    file: str
    offset: int
    length: int
    transforms: tuple[str, ...] = ()


@dataclass(slots=True)
class Piece:
    """A block of a tensor: `offsets` and `sizes` in elements; `place` is None if no file has it."""

    offsets: Shape
    sizes: Shape
    place: Place | None = None


@dataclass(slots=True)
class Entry:
    """An item of the checkpoint. `kind` is "tensor", "value" (it has one piece then) or "other".

    `problem` says in words why it cannot be read, or is "".
    """

    kind: str
    path: Path
    dtype: DType | None
    shape: Shape
    pieces: list[Piece]
    problem: str = ""


@dataclass(slots=True)
class Metadata:
    """What a `.metadata` says. `error` is why it could not be read to its end."""

    program: Program
    entries: dict[str, Entry] = field(default_factory=dict)
    places: dict[tuple[str, Shape | None], Place] = field(default_factory=dict)
    anomalies: list[Anomaly] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    error: ReadError | None = None
    budget: int = 0  # chunks and steps of paths: the memo lets a few bytes name many


def announces(head: bytes) -> bool:
    """Whether a file that begins so is a pickle that names torch's metadata class early on."""
    return b"torch.distributed" in head and b"Metadata" in head


def read_metadata(data: bytes, limits: Limits, where: str = ".metadata") -> Metadata:
    """What the bytes of a `.metadata` say; any bytes give an answer, `error` included."""
    program = run(data, limits=limits, where=where)
    found = Metadata(program, budget=limits.max_expansion + len(data))
    if program.error is not None:
        return found
    if program.end < len(data):
        what = f"{len(data) - program.end} bytes follow the pickle's end"
        found.anomalies.append(Anomaly("bytes-after-pickle", what, where, program.end))
    try:
        _fill(found, where)
    except ReadError as error:
        found.error = error
    return found


def _fill(found: Metadata, where: str) -> None:
    fields = _fields(found.program.value, "Metadata")
    if fields is None:
        raise Damaged(
            where,
            expected="a Metadata of torch.distributed.checkpoint",
            got=describe(found.program.value, 80),
        )
    listed, stored = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(listed, dict) or not isinstance(stored, dict):
        raise Damaged(
            where,
            expected="a dict state_dict_metadata and a dict storage_data",
            got=f"{describe(listed, 60)} and {describe(stored, 60)}",
        )
    version = fields.get("version")
    if isinstance(version, str):
        found.facts["version"] = version[:40]
    for key, value in stored.items():
        _store(found, key, value, where)
    paths = fields.get("planner_data")
    for name, value in listed.items():
        if not isinstance(name, str):
            raise Damaged(where, expected="names of text", got=describe(name, 80))
        path = _path(found, name, paths)
        found.entries[name] = _entry(found, name, path, value, where)
    _unlisted(found, where)


def _spend(found: Metadata, amount: int) -> None:
    found.budget -= amount
    if found.budget < 0:
        # A planner makes a list of chunks for each tensor: what spells out to more than the bytes
        # are, and a million, was shared by hand.
        raise Amplified(
            ".metadata",
            expected="chunks and paths that stay within Limits.max_expansion when written out",
            got="more",
        )


def _path(found: Metadata, name: str, paths: object) -> Path:
    """Where the planner took the item from: `name` is that path joined with dots."""
    known = paths.get(name) if isinstance(paths, dict) else None
    if not isinstance(known, tuple | list) or not known:
        return (name,)
    _spend(found, len(known) + len(name) // 16)
    good = all(type(step) in (str, int) for step in known)
    return tuple(known) if good and ".".join(map(str, known)) == name else (name,)


def _store(found: Metadata, key: object, value: object, where: str) -> None:
    index, info = _fields(key, "MetadataIndex"), _fields(value, "_StorageInfo")
    if index is None or info is None or not isinstance(index.get("fqn"), str):
        what = f"{describe(key, 60)} is stored as {describe(value, 60)}"
        found.anomalies.append(Anomaly("metadata-of-no-item", what, where))
        return
    name, offset = str(index["fqn"]), index.get("offset")
    at = None if offset is None else _sizes(offset)
    if offset is not None and at is None:
        raise Damaged(where, expected="an offset of whole numbers", got=describe(offset, 80))
    place = _place(info, name, where)
    if (name, at) in found.places:
        what = f"{name!r} at {at} is stored twice; the last place is taken"
        found.anomalies.append(Anomaly("duplicate-key", what, where))
    found.places[name, at] = place


def _place(info: dict[object, object], name: str, where: str) -> Place:
    file, offset, length = (info.get(key) for key in ("relative_path", "offset", "length"))
    transforms = info.get("transform_descriptors") or ()
    codecs = transforms if isinstance(transforms, list | tuple) else [transforms]
    if not isinstance(file, str) or not _whole(offset) or not _whole(length):
        raise Damaged(
            where,
            expected=f"a file, an offset and a length for {name!r}",
            got=f"{describe(file, 80)}, {describe(offset, 40)}, {describe(length, 40)}",
        )
    return Place(file, offset, length, tuple(describe(each, 40) for each in codecs[:_MOST_CODECS]))


def _entry(found: Metadata, name: str, path: Path, value: object, where: str) -> Entry:
    if _fields(value, "BytesStorageMetadata") is not None:
        place = found.places.get((name, None))
        problem = "" if place else "a value that no file has"
        return Entry("value", path, None, (), [Piece((), (), place)], problem)
    fields = _fields(value, "TensorStorageMetadata")
    if fields is None:
        return Entry("other", path, None, (), [], f"an item of another kind: {describe(value, 80)}")
    shape, chunks = _sizes(fields.get("size")), fields.get("chunks")
    if shape is None or not isinstance(chunks, list):
        raise Damaged(
            where,
            expected=f"a size and a list of chunks for {name!r}",
            got=f"{describe(fields.get('size'), 60)} and {describe(chunks, 60)}",
        )
    _spend(found, len(chunks))
    dtype = _dtype(fields.get("properties"))
    pieces = [_piece(found, name, chunk, where) for chunk in chunks]
    problem = "" if dtype else "a tensor of an unknown dtype"
    if not problem and any(piece.place is None for piece in pieces):
        problem = "a tensor of which no file has some chunk"
    return Entry("tensor", path, dtype, shape, pieces, problem)


def _piece(found: Metadata, name: str, chunk: object, where: str) -> Piece:
    fields = _fields(chunk, "ChunkStorageMetadata")
    offsets = _sizes(fields.get("offsets")) if fields else None
    lengths = _sizes(fields.get("sizes")) if fields else None
    if offsets is None or lengths is None:
        raise Damaged(
            where, expected=f"chunks of {name!r} with offsets and sizes", got=describe(chunk, 80)
        )
    return Piece(offsets, lengths, found.places.get((name, offsets)))


def _dtype(properties: object) -> DType | None:
    """The dtype in a TensorProperties, whose state is a tuple."""
    state = _state(properties, "TensorProperties")
    first = state[0] if isinstance(state, tuple) and state else None
    if isinstance(state, dict):
        first = state.get("dtype")
    if isinstance(first, Global) and first.module == "torch":
        return BY_NAME.get(first.name)
    return None


def _unlisted(found: Metadata, where: str) -> None:
    """Bytes that are stored and belong to nothing: a loader that is asked for them finds them."""
    known = {
        (name, piece.offsets if entry.kind == "tensor" else None)
        for name, entry in found.entries.items()
        for piece in entry.pieces
    }
    for name, at in found.places:
        if (name, at) not in known:
            what = f"{name!r} at {at} is stored and belongs to no chunk of a tensor"
            found.anomalies.append(Anomaly("metadata-of-no-item", what, where))


def _whole(value: object) -> TypeGuard[int]:
    return sizes((value,)) and isinstance(value, int) and value >= 0


def _sizes(value: object) -> Shape | None:
    numbers = size_of(value)
    return tuple(numbers) if sizes(numbers) else None  # type: ignore[arg-type]


def _fields(value: object, name: str) -> dict[object, object] | None:
    """The fields of a dataclass of torch's that the pickle makes; None if it is none of them."""
    state = _state(value, name)
    return state if isinstance(state, dict) else None


def _state(value: object, name: str) -> object:
    func = value.func if isinstance(value, Call) else None
    if not isinstance(func, Global) or func.name != name or func.computed:
        return None
    if not func.module.startswith(_PACKAGES):
        return None
    assert isinstance(value, Call)
    effects = value.effects or []
    if not effects:
        return {}
    return effects[0].args[0] if len(effects) == 1 and effects[0].kind == "BUILD" else None


def files_of(found: Metadata) -> Iterator[str]:
    """The files that are named, each once, in the order of the metadata."""
    yield from dict.fromkeys(place.file for place in found.places.values())
