"""Checkpoints in several files: an index that says which tensor lies in which part.

Source: what `transformers` 5 and `huggingface_hub` write: parts `NAME-00001-of-0000N.EXT`
(safetensors or torch zip) and `NAME.EXT.index.json` with `{"metadata": {"total_size": bytes},
"weight_map": {tensor: part}}`. Parts without an index are taken in the order of their numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tensorkeep.errors import Damaged, LimitExceeded, Unsupported
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats.contents import Contents, Items, Storage, TensorRecord, plain
from tensorkeep.pickles import describe
from tensorkeep.stores import Blob

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{1,6})-of-(?P<total>\d{1,6})(?P<suffix>\.\w+)$")
ReadPart = Callable[[str], Contents]


class Folder(Protocol):
    """Where the parts lie."""

    name: str

    def names(self) -> list[str]:
        """Names of the files in it, sorted."""

    def open(self, name: str) -> Blob:
        """One of them."""


def index_names(names: Sequence[str]) -> list[str]:
    """Index files among `names`, the ones over safetensors parts first."""
    found = [name for name in names if name.endswith(".index.json")]
    return sorted(found, key=lambda name: (not name.endswith(".safetensors.index.json"), name))


def numbered(names: Sequence[str]) -> dict[str, list[str]]:
    """Parts that their names number, by what they are parts of."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        match = _PART.match(name)
        if match:
            groups.setdefault(f"{match['stem']}{match['suffix']}", []).append(name)
    return groups


def read_index(folder: Folder, index: str, read_part: ReadPart, limits: Limits) -> Contents:
    """The checkpoint that `index` describes. Raises `Damaged` if a part or a tensor is missing."""
    weight_map, metadata = _parse(folder, index, limits)
    present = set(folder.names())
    parts = list(dict.fromkeys(weight_map.values()))
    for part in parts:
        _check_name(folder, part)
        if part not in present:
            raise Damaged(
                folder.name,
                expected=f"{len(parts)} parts",
                got=f"{sum(p in present for p in parts)}; {part} is missing",
                where=index,
                remedy="Download the missing part, or make the checkpoint again.",
            )
    contents = {part: read_part(part) for part in parts}
    merged = _merge(folder.name, contents, weight_map)
    merged.metadata.update(metadata)
    return merged


def read_numbered(folder: Folder, parts: list[str], read_part: ReadPart) -> Contents:
    """The checkpoint of `parts` that have no index. Raises `Damaged` if a number is missing."""
    matches = [match for match in map(_PART.match, parts) if match]
    total = int(matches[0]["total"])
    if [int(match["number"]) for match in matches] != list(range(1, total + 1)):
        raise Damaged(
            folder.name,
            expected=f"parts 1 to {total}",
            got=", ".join(match["number"] for match in matches)[:100],
            remedy="Download the missing parts.",
        )
    return _merge(folder.name, {part: read_part(part) for part in parts}, None)


def _parse(folder: Folder, index: str, limits: Limits) -> tuple[dict[str, str], dict[str, str]]:
    blob = folder.open(index)
    try:
        if blob.size > limits.max_json_bytes:
            raise LimitExceeded(blob.name, got=f"an index of {blob.size} bytes")
        data = json.loads(blob.read(0, blob.size).decode("utf-8"))
        weight_map = data["weight_map"]
        if not weight_map or not all(type(part) is str for part in weight_map.values()):
            raise TypeError("a weight_map without parts, or one that is no string")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(
            blob.name, expected='JSON with a "weight_map" of file names', got=repr(error)[:120]
        ) from None
    finally:
        blob.close()
    metadata = data.get("metadata") if isinstance(data, dict) else None
    extra = metadata.items() if isinstance(metadata, dict) else ()
    return weight_map, {_text(key): _text(value) for key, value in extra}


def _text(value: object) -> str:
    """`value` as text that any format can store."""
    text = value if isinstance(value, str) else describe(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_name(folder: Folder, part: str) -> None:
    if "/" in part or "\\" in part or "\0" in part or part in ("", ".", ".."):
        raise Damaged(
            folder.name,
            expected="parts in the folder of their index",
            got=repr(part),
            remedy="Do not use this checkpoint: its index points outside its own folder.",
        )


def _merge(name: str, contents: dict[str, Contents], weight_map: dict[str, str] | None) -> Contents:
    root: dict[str, object] = {}
    storages: dict[str, Storage] = {}
    anomalies: list[Anomaly] = []
    notes: list[str] = []
    for part, content in contents.items():
        anomalies += [_placed(part, anomaly) for anomaly in content.anomalies]
        for storage in content.storages.values():
            storage.key = f"{part}:{storage.key}"
            storages[storage.key] = storage
        for key, value in _entries(part, content, notes):
            listed = part
            if weight_map is not None:
                listed = weight_map.get(key, part if key in content.aliases else "")
            anomalies += _place(root, key, value, part, listed)
    _check_complete(name, root, weight_map)
    first = next(iter(contents.values()))
    return Contents(
        format=f"sharded_{first.format}",
        container="directory",
        root=_in_order(root, weight_map),
        lens=plain,
        storages=storages,
        metadata={k: v for content in contents.values() for k, v in content.metadata.items()},
        facts=dict(first.facts),
        programs=[(f"{p}: {w}", prog) for p, c in contents.items() for w, prog in c.programs],
        anomalies=anomalies,
        parts=list(contents),
        notes=notes,
        audit=lambda deep: _audit(contents, deep),
        verify=lambda: _verify(contents),
        digests=any(content.digests for content in contents.values()),
    )


def _entries(part: str, content: Contents, notes: list[str]) -> Iterator[tuple[str, TensorRecord]]:
    root = content.lens(content.root)
    if not isinstance(root, Items | dict):
        raise Unsupported(part, expected="a dict of tensors in each part", got="another object")
    for key, raw in root.pairs if isinstance(root, Items) else root.items():
        value = content.lens(raw)
        if isinstance(key, str) and isinstance(value, TensorRecord):
            yield key, value
        else:
            notes.append(f"{part}: {describe(key, 80)} is no tensor and was left out")


def _placed(part: str, anomaly: Anomaly) -> Anomaly:
    return Anomaly(anomaly.kind, anomaly.what, f"{part}: {anomaly.where}", anomaly.offset)


def _place(
    root: dict[str, object], key: str, value: TensorRecord, part: str, listed: str
) -> Iterator[Anomaly]:
    """Take `value` if the index lists it in this part; say so if the index and the part differ."""
    if not listed:
        what = f"tensor {key!r} is in {part} and not in the index"
        yield Anomaly("tensor-not-in-index", what, part)
    elif listed != part:
        what = f"tensor {key!r} is in {part}, and the index says {listed}"
        yield Anomaly("tensor-in-two-parts", what, part)
    elif key in root:
        what = f"tensor {key!r} is in {part} and in a part before it, which was taken"
        yield Anomaly("tensor-in-two-parts", what, part)
    if listed in ("", part):
        root.setdefault(key, value)


def _check_complete(name: str, root: dict[str, object], weight_map: dict[str, str] | None) -> None:
    for key, part in (weight_map or {}).items():
        if key not in root:
            raise Damaged(
                name, expected=f"tensor {key!r} in {part}", got="a part without it", where=part
            )


def _in_order(root: dict[str, object], weight_map: dict[str, str] | None) -> dict[str, object]:
    """As the index lists them: that is the order in which the model was saved."""
    if weight_map is None:
        return root
    ordered = {key: root[key] for key in weight_map}
    return ordered | root


def _audit(contents: dict[str, Contents], deep: bool) -> Iterator[Anomaly]:
    for part, content in contents.items():
        for found in content.audit(deep):
            yield _placed(part, found)


def _verify(contents: dict[str, Contents]) -> Iterator[tuple[str, str, str, str]]:
    for part, content in contents.items():
        for member, tensor, expected, got in content.verify():
            yield f"{part}: {member}", f"{part}:{tensor}" if tensor else "", expected, got
