"""What `torch.export.save` writes (.pt2): weights as bytes, a graph as JSON, sample inputs.

Source: `torch/export/pt2_archive` of torch 2.13 (`_package.py`, `constants.py`) and
`torch/_export/serde/schema.py`. Below the root folder: `archive_format` ("pt2"),
`models/NAME.json`, `data/weights/NAME_weights_config.json` and `data/weights/weight_N`,
`data/constants/NAME_constants_config.json` and `tensor_N`, `custom_obj_N` or `opaque_obj_N`
beside it, `data/sample_inputs/NAME.pt` (a file of torch.save's, which `torch.export.load` loads
without any restriction), `data/aotinductor/NAME/` (compiled code), `extra/`. Until torch 2.7 it
was a zip without a root folder: `serialized_exported_program.json`, `serialized_state_dict.pt`,
`serialized_constants.pt`, `serialized_example_inputs.pt`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tensorkeep.archives.zip import ZipArchive, ZipMember
from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.errors import Damaged, LimitExceeded
from tensorkeep.facts import Limits
from tensorkeep.formats._exported import parsed, requests
from tensorkeep.formats._zip_reading import ZipReading
from tensorkeep.formats._zip_storages import stored_at
from tensorkeep.formats.contents import (
    Code,
    Contents,
    Graft,
    Inert,
    Parts,
    Storage,
    TensorRecord,
    plain,
    reach,
    sizes,
)

NAME = "pt2"
SUFFIXES: tuple[str, ...] = (".pt2",)
_LEGACY = "serialized_exported_program.json"
_OLD_FILES = {
    "serialized_state_dict.pt": "model",
    "serialized_constants.pt": "constants",
    "serialized_example_inputs.pt": "sample_inputs",
}
_CONFIGS = (("weights", "_weights_config.json"), ("constants", "_constants_config.json"))
_SAMPLES = "data/sample_inputs/"
_STRIDED = 7
# The numbers of `ScalarType` in schema.py.
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
    28: "uint16", 29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
# What lies in data/aotinductor and is neither compiled, linked nor loaded.
_DATA = ("weights_config.json", "_metadata.json", ".txt", ".md")


def claims(archive: ZipArchive) -> bool:
    """What `torch.export.load` looks for: its new layout, or the one without a root folder."""
    root = archive.root
    new = root is not None and archive.holds(f"{root}/archive_format")
    return new or archive.holds(_LEGACY)


def read_archive(archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
    """The exported program in `archive`. Raises `Damaged` and `LimitExceeded`."""
    return _Exported(ZipReading(archive, limits, parts)).read()


@dataclass(frozen=True, slots=True)
class _Meta:
    """How a payload lies in its member."""

    dtype: DType
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class _Exported:
    def __init__(self, reading: ZipReading) -> None:
        self.reading = reading
        self.models: list[ZipMember] = []
        self.sections: dict[str, object] = {}
        self.extra: list[str] = []
        self._told = False

    def read(self) -> Contents:
        reading = self.reading
        reading.torch_records()
        names = {}
        for member in reading.archive.members:
            names[reading.inner(member)] = member
        for inner, member in names.items():
            self._member(inner, member)
        for member in reading.archive.members:
            self._old(member)
        if self.extra:
            self.sections["extra"] = self.extra
        self.sections["models"] = [member.name for member in self.models]
        contents = reading.contents(NAME, self.sections, plain)
        contents.code = self._code
        contents.notes = list(self._leaks())
        return contents

    def _member(self, inner: str, member: ZipMember) -> None:
        _, _, name = inner.rpartition("/")
        if inner.startswith("models/"):
            # Whatever it is called: the loader cuts the last five characters off.
            self.models.append(member)
        elif inner.startswith(_SAMPLES) and member.size:
            self._nested("sample_inputs", inner[len(_SAMPLES) :].removesuffix(".pt"), member)
        elif inner.startswith("data/aotinductor/") and not name.endswith(_DATA):
            self.reading.code.append(Code(member.name, "native", ""))
        elif inner.startswith("extra/"):
            self.extra.append(inner)
        else:
            self._config(inner, member)

    def _config(self, inner: str, member: ZipMember) -> None:
        """A list of weights or constants, or a file of them as torch wrote it in 2.8."""
        for kind, suffix in _CONFIGS:
            folder = f"data/{kind}/"
            if not inner.startswith(folder):
                continue
            name = inner.removeprefix(folder)
            if name.endswith(suffix):
                self._payloads(kind, name.removesuffix(suffix), member)
            elif name.endswith(".pt"):
                self._nested("model" if kind == "weights" else kind, "", member)
            elif name.startswith("opaque_obj_"):
                self.reading.program(member)

    def _old(self, member: ZipMember) -> None:
        section = _OLD_FILES.get(member.name)
        if section is not None and member.size:
            self._nested(section, "", member)
        elif member.name == _LEGACY:
            self.models.append(member)

    def _nested(self, section: str, name: str, member: ZipMember) -> None:
        """A file of torch.save's: shown under its section, judged as the file it is."""
        held = self.reading.nest(member)
        if held is None:
            return
        for storage in held.storages.values():
            storage.key = f"{self.reading.inner(member) or member.name}:{storage.key}"
            self.reading.storages[storage.key] = storage
        if name:
            inside = self.sections.setdefault(section, {})
            assert isinstance(inside, dict)
            inside[name] = Graft(held)
        else:
            self.sections[section] = Graft(held)

    # Weights and constants

    def _payloads(self, kind: str, model: str, member: ZipMember) -> None:
        config = self._json(member)
        table = config.get("config") if isinstance(config, dict) else None
        if not isinstance(table, dict):
            raise Damaged(
                self.reading.archive.blob.name,
                expected='JSON with a "config" of payloads',
                got="something else",
                where=member.name,
            )
        found = {str(name): self._payload(kind, meta, member) for name, meta in table.items()}
        # One program is called "model": its weights are the section of that name.
        label = kind if kind == "constants" else "model"
        section = label if model == "model" else f"{model}.{label}"
        if found:
            self.sections[section] = found

    def _json(self, member: ZipMember) -> object:
        limits = self.reading.limits
        if member.size > limits.max_json_bytes:
            raise LimitExceeded(
                f"{self.reading.archive.blob.name}, {member.name}",
                expected=f"at most {limits.max_json_bytes} bytes of JSON",
                got=member.size,
            )
        return parsed(self.reading.data(member))

    def _payload(self, kind: str, meta: object, config: ZipMember) -> object:
        path = meta.get("path_name") if isinstance(meta, dict) else None
        if not isinstance(meta, dict) or not isinstance(path, str):
            self._odd("odd-payload", "a payload without a path", config)
            return Inert("payload without a path", unread="tensor")
        if "/" in path or "\\" in path or "\0" in path or path in (".", ".."):
            self._odd("storage-key-traversal", f"payload path {path[:80]!r}", config)
            return Inert("payload outside of its folder", unread="tensor")
        member = self.reading.find(f"data/{kind}/{path}")
        if member is None:
            self._odd("storage-missing", f"payload {path!r} is not in the archive", config)
            return Inert("payload that is missing", unread="tensor")
        if meta.get("use_pickle") is not False:
            return self._pickled(kind, path, member)
        return self._tensor(f"{kind}/{path}", member, meta, config)

    def _pickled(self, kind: str, path: str, member: ZipMember) -> object:
        """A subclass of tensor, or an object: `torch.load` without restriction reads it."""
        known = dict(self.reading.nested).get(member.name)
        if known is not None:
            return Graft(known)
        if path.startswith("opaque_obj_"):
            return Inert("pickled object")
        held = self.reading.nest(member)
        return (
            Inert("payload that cannot be read", unread="object") if held is None else Graft(held)
        )

    def _tensor(
        self, label: str, member: ZipMember, meta: dict[str, object], config: ZipMember
    ) -> object:
        described = meta.get("tensor_meta")
        found = _meta(described) if isinstance(described, dict) else None
        if found is None:
            return Inert("tensor whose description is not torch's", unread="tensor")
        if member.size == 0 and 0 not in found.shape:
            return Inert("tensor that was exported without values", unread="tensor")
        archive = self.reading.archive
        storage = self.reading.storages.get(label) or Storage(
            label, member.size, archive.blob, locate=lambda: stored_at(archive, member)
        )
        self.reading.storage(label, member, storage)
        record = TensorRecord(found.dtype, found.shape, found.stride, found.offset, storage)
        record.parameter = meta.get("is_param") is True
        assert isinstance(described, dict)
        record.requires_grad = described.get("requires_grad") is True
        end = reach(found.shape, found.stride, found.offset) * found.dtype.itemsize
        if end > member.size:
            record.problem = f"reaches byte {end} of a storage of {member.size} bytes"
            self._odd("storage-out-of-bounds", f"a tensor {record.problem}", config)
        return record

    def _odd(self, kind: str, what: str, config: ZipMember) -> None:
        self.reading.note(kind, what, config.name)

    # Everything else

    def _code(self) -> Iterator[Code]:
        """Compiled files, and what the graphs ask their loader for."""
        yield from self.reading.code
        for member in self.models:
            program = self._json(member)
            if program is None and not self._told:
                error = Damaged(member.name, expected="JSON", got="something else")
                self.reading.unreadable.append((member.name, error))
            asked = requests(program)
            lines = [f"{kind} {json.dumps(text)}" for kind, text in asked]
            yield Code(member.name, "exported", "\n".join(lines))
        self._told = True

    def _leaks(self) -> Iterator[str]:
        """Sample inputs that are a view carry the whole storage that they were cut from."""
        for name, held in self.reading.nested:
            if "sample_inputs" in name or "example_inputs" in name:
                stored = sum(storage.nbytes for storage in held.storages.values())
                shown = sum(_tensor_bytes(held))
                if stored > shown:
                    yield f"{name} holds {stored} bytes, its tensors show {shown} of them"


def _meta(described: dict[str, object]) -> _Meta | None:
    number = described.get("dtype")
    dtype = BY_NAME.get(_DTYPES.get(number, "")) if type(number) is int else None
    shape, stride = _integers(described.get("sizes")), _integers(described.get("strides"))
    offset = _integers([described.get("storage_offset")])
    if dtype is None or described.get("layout") != _STRIDED:
        return None
    if shape is None or stride is None or offset is None or len(shape) != len(stride):
        return None
    return _Meta(dtype, shape, stride, offset[0])


def _integers(value: object) -> tuple[int, ...] | None:
    """The numbers in `[{"as_int": 2}, ...]`; None if there is anything else, or a negative one."""
    if not isinstance(value, list):
        return None
    found = [item.get("as_int") if isinstance(item, dict) else None for item in value]
    if not sizes(found) or any(number < 0 for number in found if isinstance(number, int)):
        return None
    return tuple(number for number in found if isinstance(number, int))


def _tensor_bytes(contents: Contents) -> Iterator[int]:
    """Bytes of each tensor near the top of a file of sample inputs."""
    todo: list[object] = [contents.root]
    for _ in range(10_000):
        if not todo:
            return
        value = contents.lens(todo.pop())
        if isinstance(value, TensorRecord):
            yield value.nbytes
        elif isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list | tuple):
            todo.extend(value)
