"""Chunks of tensors in safetensors files, one or more for each rank, without an index.

Source: torch 2.13 `torch/distributed/checkpoint/hf_storage.py` and `_hf_utils.py`
(HuggingFaceStorageWriter with `save_distributed`): `shard-RANK-model-PART-of-PARTS.safetensors`,
each with `DCP_SHARDING_INFO` in its metadata: JSON, a name to `{"saved_offsets": [...]}`. How
large a tensor is follows from its chunks alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from tensorkeep.errors import Damaged
from tensorkeep.facts import Anomaly
from tensorkeep.formats._chunks import Chunk, Chunked
from tensorkeep.formats._tiling import Steps, fault
from tensorkeep.formats.contents import (
    Contents,
    Inert,
    Storage,
    TensorRecord,
    contiguous_stride,
    plain,
    sizes,
)

NAME = "dcp_safetensors"
INFO = "DCP_SHARDING_INFO"
_OWN = frozenset({INFO, "DCP_VERSION"})
_NAME = re.compile(r"shard-\d{1,9}-model-\d{1,9}-of-\d{1,9}\.safetensors")


def named(names: list[str]) -> list[str]:
    """Those of `names` that this writer gives."""
    return [name for name in sorted(names) if _NAME.fullmatch(name)]


def read(parts: dict[str, Contents]) -> Contents:
    """The checkpoint in `parts`, contents of safetensors files by name. Raises `Damaged`."""
    chunks: dict[str, list[Chunk]] = {}
    for part, inside in parts.items():
        offsets = _offsets(part, inside)
        assert isinstance(inside.root, dict)
        for name, record in inside.root.items():
            chunks.setdefault(name, []).append(_chunk(part, name, record, offsets))
    contents = Contents(
        format=NAME,
        container="directory",
        root={},
        lens=plain,
        storages={},
        metadata=_metadata(parts),
        anomalies=[_placed(part, odd) for part, c in parts.items() for odd in c.anomalies],
        parts=list(parts),
    )
    contents.audit = lambda deep: _audit(contents, parts, deep)
    steps = Steps()
    storages: dict[str, Storage] = {}
    contents.root = {
        name: _tensor(contents, storages, name, found, steps) for name, found in chunks.items()
    }
    contents.storages = storages
    return contents


def _metadata(parts: dict[str, Contents]) -> dict[str, str]:
    pairs = (pair for inside in parts.values() for pair in inside.metadata.items())
    return {key: value for key, value in pairs if key not in _OWN}


def _placed(part: str, odd: Anomaly) -> Anomaly:
    return Anomaly(odd.kind, odd.what, f"{part}: {odd.where}", odd.offset)


def _audit(contents: Contents, parts: dict[str, Contents], deep: bool) -> Iterator[Anomaly]:
    yield from contents.anomalies
    for part, inside in parts.items():
        yield from (_placed(part, odd) for odd in inside.audit(deep))


def _offsets(part: str, inside: Contents) -> dict[str, tuple[int, ...]]:
    """Where in its tensor each of the file's chunks belongs."""
    try:
        told = json.loads(inside.metadata[INFO])
        found = {name: tuple(told[name]["saved_offsets"]) for name in _names(inside)}
        if not all(map(sizes, found.values())):
            raise TypeError("saved_offsets that are no whole numbers")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(
            part, expected=f"{INFO} with saved_offsets of every tensor", got=repr(error)[:120]
        ) from None
    return found


def _names(inside: Contents) -> list[str]:
    assert isinstance(inside.root, dict)
    return list(inside.root)


def _chunk(
    part: str, name: str, record: TensorRecord, offsets: dict[str, tuple[int, ...]]
) -> Chunk:
    return Chunk(offsets[name], record.shape, _same(record), record)


def _same(record: TensorRecord) -> Callable[[], TensorRecord]:
    return lambda: record


def _tensor(
    contents: Contents,
    storages: dict[str, Storage],
    name: str,
    chunks: list[Chunk],
    steps: Steps,
) -> object:
    records = [chunk.open() for chunk in chunks]
    dtype = records[0].dtype
    dimensions = {len(chunk.offsets) for chunk in chunks} | {len(r.shape) for r in records}
    if len(dimensions) > 1 or any(record.dtype is not dtype for record in records):
        return _odd(contents, name, "chunk-differs", "chunks of different dtypes or dimensions")
    ends = zip(*(_ends(chunk) for chunk in chunks), strict=True)
    shape = tuple(max(0, *end) for end in ends)
    kind, what = fault(shape, chunks, steps)
    if kind:
        return _odd(contents, name, kind, what)
    storage = Chunked(name, dtype, shape, chunks, records[0].storage.blob)
    storages[name] = storage
    return TensorRecord(dtype, shape, contiguous_stride(shape), 0, storage)


def _ends(chunk: Chunk) -> list[int]:
    return [at + size for at, size in zip(chunk.offsets, chunk.sizes, strict=True)]


def _odd(contents: Contents, name: str, kind: str, what: str) -> Inert:
    contents.anomalies.append(Anomaly(kind, f"{name!r} has {what}"))
    return Inert(f"tensor with {what}", unread="tensor")
