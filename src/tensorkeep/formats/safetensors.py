"""safetensors: a length, a JSON header, the tensors' bytes one after the other.

Source: the format's description in the README of huggingface/safetensors, and what version 0.8
accepts: u64 little-endian header length (at most 100,000,000), JSON that begins with `{`, an
optional `__metadata__` of strings, `data_offsets` relative to the end of the header, no holes,
nothing behind the last tensor. float4 counts two elements per byte in the last dimension.
"""

from __future__ import annotations

import json
import struct
from itertools import chain
from math import prod
from operator import itemgetter
from typing import Any

from tensorkeep.dtypes import BY_SAFETENSORS, DType
from tensorkeep.errors import Damaged, LimitExceeded, Unsupported
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats.contents import (
    MAX_DIMENSIONS,
    Contents,
    Parts,
    Storage,
    TensorRecord,
    contiguous_stride,
    plain,
    words,
)
from tensorkeep.stores import Blob

NAME = "safetensors"
SUFFIXES: tuple[str, ...] = (".safetensors",)
_PACKED = "float4_e2m1fn_x2"
_PACKED_NAME = "F4"
_KEYS = ("dtype", "shape", "data_offsets")


def identify(blob: Blob, head: bytes) -> bool:
    """Whether the first bytes are a length that fits the file and the opening of a JSON object."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    length: int = struct.unpack("<Q", head[:8])[0]
    # A truncated file must be called damaged, not "no checkpoint": a plausible length suffices.
    return length <= 100_000_000 and (length <= blob.size or head[9:10] in b'"}')


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The checkpoint in `blob`, without its tensor bytes. Raises `Damaged`, `LimitExceeded`."""
    header, start = _header(blob, limits)
    anomalies: list[Anomaly] = []
    entries = _parse(header, blob, anomalies)
    metadata = _metadata(entries.pop("__metadata__", {}), blob)
    made = _tensors(entries, blob, start, anomalies)
    storages = {name: record.storage for name, record in made.items()}
    root: dict[str, object] = dict(made)
    aliases = _aliases(metadata, root)
    root.update({alias: root[kept] for alias, kept in aliases.items()})
    return Contents(
        NAME,
        "safetensors",
        root,
        plain,
        storages,
        metadata,
        anomalies=anomalies,
        aliases=frozenset(aliases),
    )


def _aliases(metadata: dict[str, str], root: dict[str, object]) -> dict[str, str]:
    """Further names of tensors, as `save_model` of the official library notes them down."""
    return {
        name: kept
        for name, kept in metadata.items()
        if name != "format" and name not in root and kept in root
    }


def _header(blob: Blob, limits: Limits) -> tuple[bytes, int]:
    if blob.size < 8:
        raise Damaged(blob.name, expected="a header length of 8 bytes", got=f"{blob.size} bytes")
    length: int = struct.unpack("<Q", blob.read(0, 8))[0]
    if length > limits.max_json_bytes:
        raise LimitExceeded(
            blob.name,
            expected=f"a header of at most {limits.max_json_bytes} bytes",
            got=str(length),
            where="byte 0",
        )
    if 8 + length > blob.size:
        raise Damaged(
            blob.name,
            expected=f"a header of {length} bytes",
            got=f"a file of {blob.size} bytes",
            where="byte 0",
        )
    return blob.read(8, length), 8 + length


def _parse(header: bytes, blob: Blob, anomalies: list[Anomaly]) -> dict[str, object]:
    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(items)
        if len(made) != len(items):
            what = "a name stands twice in the header; readers differ in which they take"
            anomalies.append(Anomaly("duplicate-key", what, "header", 8))
        return made

    try:
        # A hook for numbers is slow, and only one way of writing them is not taken by all.
        whole = _whole if b"-0" in header else None
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=pairs, parse_int=whole)
        if b"\\" in header:
            # Half a surrogate pair: no text that any writer could store, and none that we could.
            json.dumps(entries, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Damaged(
            blob.name, expected="a JSON header", got=str(error)[:200], where="byte 8"
        ) from None
    if not isinstance(entries, dict) or not header.startswith(b"{"):
        raise Damaged(blob.name, expected="a JSON object", got="something else", where="byte 8")
    return entries


def _whole(text: str) -> int:
    if text == "-0":  # the official library takes it for a fraction
        raise ValueError("-0 where a whole number belongs")
    return int(text)


def _metadata(value: object, blob: Blob) -> dict[str, str]:
    if value is None:  # the official library takes null for "none" too
        return {}
    if not isinstance(value, dict) or not all(type(text) is str for text in value.values()):
        raise Damaged(blob.name, expected="__metadata__ of strings", got="other values")
    return value


def _tensors(
    entries: dict[str, object], blob: Blob, start: int, anomalies: list[Anomaly]
) -> dict[str, TensorRecord]:
    if not _are_plain(entries):
        return _one_by_one(entries, blob, start, anomalies)
    root, at, known = {}, 0, dict[tuple[int, ...], tuple[int, tuple[int, ...]]]()
    room = blob.size - start
    for name, entry in entries.items():
        shape = tuple(entry["shape"])  # type: ignore[index]
        begin, end = entry["data_offsets"]  # type: ignore[index]
        dtype = BY_SAFETENSORS[entry["dtype"]]  # type: ignore[index]
        found = known.get(shape)
        if found is None:
            found = known[shape] = prod(shape), contiguous_stride(shape)
        count, stride = found
        if begin != at or end > room or end - begin != count * dtype.itemsize:
            return _one_by_one(entries, blob, start, anomalies)
        storage = Storage(name, end - begin, blob, start + begin)
        root[name] = TensorRecord(dtype, shape, stride, 0, storage)
        at = end
    if at != room:
        return _one_by_one(entries, blob, start, anomalies)
    return root


def _are_plain(entries: dict[str, object]) -> bool:
    """Whether the entries have what they must have, looked at column by column.

    A header of twenty thousand tensors is otherwise as many times a dozen calls.
    """
    found: list[dict[str, Any]] = [entry for entry in entries.values() if isinstance(entry, dict)]
    if not found or len(found) < len(entries):
        return False
    try:
        dtypes, shapes, offsets = (list(map(itemgetter(key), found)) for key in _KEYS)
    except KeyError:
        return False
    if set(map(type, dtypes)) != {str} or set(map(type, chain(shapes, offsets))) != {list}:
        return False
    if set(map(len, offsets)) != {2} or max(map(len, shapes)) > MAX_DIMENSIONS:
        return False
    numbers = list(chain.from_iterable(chain(shapes, offsets)))
    known = BY_SAFETENSORS.keys() - {_PACKED_NAME}
    return words(numbers) and min(numbers) >= 0 and known.issuperset(dtypes)


def _one_by_one(
    entries: dict[str, object], blob: Blob, start: int, anomalies: list[Anomaly]
) -> dict[str, TensorRecord]:
    """What says of each entry what is wrong with it."""
    root: dict[str, TensorRecord] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        root[name], begin, end = _tensor(name, entry, blob, start)
        spans.append((begin, end, name))
    _check_spans(spans, blob, start, anomalies)
    return root


def _tensor(name: str, entry: object, blob: Blob, start: int) -> tuple[TensorRecord, int, int]:
    if not isinstance(entry, dict):
        raise Damaged(blob.name, expected="an object", got=str(entry)[:60], where=f"key {name!r}")
    shape, (begin, end) = _numbers(name, entry, blob)
    dtype = _dtype(name, entry, blob)
    if dtype.name == _PACKED:
        if not shape or shape[-1] % 2:
            raise Unsupported(
                blob.name,
                expected="an even last dimension, as torch packs float4",
                got=f"shape {list(shape)}",
                where=f"key {name!r}",
            )
        shape = (*shape[:-1], shape[-1] // 2)
    nbytes = prod(shape) * dtype.itemsize
    if end - begin != nbytes or start + end > blob.size:
        raise Damaged(
            blob.name,
            expected=f"{nbytes} bytes of {dtype} {list(shape)} inside the file",
            got=f"data_offsets [{begin}, {end}], {blob.size - start} bytes after the header",
            where=f"key {name!r}",
        )
    storage = Storage(name, nbytes, blob, offset=start + begin)
    return TensorRecord(dtype, shape, contiguous_stride(shape), 0, storage), begin, end


def _numbers(
    name: str, entry: dict[str, object], blob: Blob
) -> tuple[tuple[int, ...], tuple[int, int]]:
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _whole_numbers(shape, offsets):
        raise Damaged(
            blob.name,
            expected="shape (up to 64) and data_offsets (2) of whole numbers",
            got=str({key: entry[key] for key in sorted(entry)[:4]})[:120],
            where=f"key {name!r}",
        )
    return tuple(shape), (offsets[0], offsets[1])  # type: ignore[arg-type,index]


def _whole_numbers(shape: object, offsets: object) -> bool:
    """Both at once: this runs for every tensor."""
    if not (isinstance(shape, list) and isinstance(offsets, list)):
        return False
    both = [*shape, *offsets]
    if len(offsets) != 2 or len(shape) > MAX_DIMENSIONS or not words(both):
        return False
    return bool(min(both) >= 0)


def _dtype(name: str, entry: dict[str, object], blob: Blob) -> DType:
    dtype = BY_SAFETENSORS.get(str(entry.get("dtype")))
    if dtype is None:
        raise Unsupported(
            blob.name,
            expected="a dtype of safetensors 0.8",
            got=repr(entry.get("dtype"))[:40],
            where=f"key {name!r}",
        )
    return dtype


def _check_spans(
    spans: list[tuple[int, int, str]], blob: Blob, start: int, anomalies: list[Anomaly]
) -> None:
    """Every byte behind the header belongs to exactly one tensor; else readers may differ."""
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            kind = "hole-between-tensors" if begin > at else "overlapping-tensors"
            what = f"tensor {name!r} begins at {begin}, the one before it ends at {at}"
            anomalies.append(Anomaly(kind, what, "header", start + begin))
        at = max(at, end)
    if start + at != blob.size:
        what = f"{blob.size - start - at} bytes follow the last tensor"
        anomalies.append(Anomaly("trailing-bytes", what, "", start + at))
