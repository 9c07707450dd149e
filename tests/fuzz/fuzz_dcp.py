"""The `.metadata` of a torch.distributed.checkpoint folder, beside a data file of its items."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import fuzz_pickles
import seeds as samples
from promises import LIMITS

from tensorkeep import formats
from tensorkeep.errors import Damaged, TensorkeepError
from tensorkeep.facts import Limits
from tensorkeep.formats import dcp
from tensorkeep.scanning.examining import examine
from tensorkeep.stores.memory import MemoryBlob

tricks = samples.module("corpus/hostile/tricks")
META, INDEX = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
WORDS = [
    *fuzz_pickles.WORDS,
    *(f"c{META}\n{name}\n".encode() for name in ("Metadata", "TensorStorageMetadata")),
    *(f"c{META}\n{name}\n".encode() for name in ("ChunkStorageMetadata", "MetadataIndex")),
    *(f"c{META}\n{name}\n".encode() for name in ("BytesStorageMetadata", "TensorProperties")),
    *(
        f"c{INDEX}\n_StorageInfo\n".encode(),
        b"ctorch\nSize\n",
        b"ctorch\nfloat32\n",
        b"__0_0.distcp",
    ),
    *(b"state_dict_metadata", b"storage_data", b"relative_path", b"offset", b"length", b"chunks"),
]
_ITEM = tricks.checkpoint(tricks.P2 + tricks.tensor() + b".")
_VALUE = tricks.archive(
    [tricks.Member("archive/data.pkl", b"\x80\x02K\x07."), tricks.Member("archive/version", b"3\n")]
)
FILES = {"__0_0.distcp": _ITEM + _ITEM + _VALUE}
_LARGEST = 1 << 20


@dataclass
class Folder:
    """A folder in memory."""

    files: dict[str, bytes]
    name: str = "step"
    opened: list[MemoryBlob] = field(default_factory=list)

    def names(self) -> list[str]:
        return sorted(self.files)

    def open(self, name: str) -> MemoryBlob:
        if name not in self.files:
            raise Damaged(name, expected="a file of this folder", got="none")
        return MemoryBlob(self.files[name], name)


def made(module: str, name: str, **fields: bytes) -> bytes:
    """A dataclass as pickle writes it: made without its constructor, then given its fields."""
    state = b"".join(tricks.u(key) + value + b"s" for key, value in fields.items())
    return tricks.g(module, name) + b")\x81}" + state + b"b"


def size(*numbers: int) -> bytes:
    return tricks.g("torch", "Size") + b"(" + b"".join(map(tricks.i, numbers)) + b"t\x85R"


def chunk(at: int, length: int) -> bytes:
    return made(META, "ChunkStorageMetadata", offsets=size(at), sizes=size(length))


def stored(name: str, at: int | None, offset: int, length: int) -> bytes:
    place = b"N" if at is None else size(at)
    index = made(META, "MetadataIndex", fqn=tricks.u(name), offset=place, index=b"N")
    fields = {"relative_path": tricks.u("__0_0.distcp"), "offset": tricks.i(offset)}
    info = made(INDEX, "_StorageInfo", **fields, length=tricks.i(length))
    return index + info + b"s"


def metadata(items: bytes, places: bytes, paths: bytes = b"}") -> bytes:
    fields = {"state_dict_metadata": b"}" + items, "planner_data": paths}
    return b"\x80\x02" + made(META, "Metadata", **fields, storage_data=b"}" + places) + b"."


def seeds() -> list[bytes]:
    u, g = tricks.u, tricks.g
    properties = g(META, "TensorProperties") + b")\x81(" + g("torch", "float32")
    properties += g("torch.serialization", "_get_layout") + u("torch.strided") + b"\x85R\x89"
    properties += g(META, "_MEM_FORMAT_ENCODING") + b"K\x00\x85R\x89tb"
    fields = {"properties": properties, "size": size(8)}
    chunks = b"](" + chunk(0, 4) + chunk(4, 4) + b"e"
    weight = u("weight") + made(META, "TensorStorageMetadata", **fields, chunks=chunks) + b"s"
    value = u("epoch") + made(META, "BytesStorageMetadata") + b"s"
    places = stored("weight", 0, 0, len(_ITEM)) + stored("weight", 4, len(_ITEM), len(_ITEM))
    last = stored("epoch", None, 2 * len(_ITEM), len(_VALUE))
    path = b"}" + u("weight") + b"(" + u("weight") + b"ts"
    whole = [
        metadata(weight, places),
        metadata(weight + value, places + last, path),
        metadata(value, last),
        metadata(b"", b""),
        metadata(weight, stored("weight", 0, 0, len(_ITEM))),
    ]
    return [*whole, *samples.programs(20)]


def one(data: bytes) -> None:
    first, again = _judged(data), _judged(data)
    assert first == again, "two scans differ"


def _judged(data: bytes) -> str:
    folder = Folder({".metadata": data, **FILES})
    try:
        contents = dcp.read(folder, ".metadata", _inside, LIMITS)
    except TensorkeepError as error:
        return str(error)
    findings = examine(contents, True, LIMITS, "step")
    for storage in contents.storages.values():
        _read(storage)
    return json.dumps([finding.to_dict() for finding in findings], allow_nan=False)


def _inside(blob: MemoryBlob) -> formats.Inside:
    return formats.inside(blob, Limits())


def _read(storage) -> None:
    if 0 < storage.nbytes <= _LARGEST:
        try:
            storage.read_into(0, memoryview(bytearray(storage.nbytes)))
        except TensorkeepError as error:
            assert "\n" not in str(error), "an error of two lines"


mutate = fuzz_pickles.mutate
