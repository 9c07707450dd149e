"""Allowlisted names of torch.distributed.checkpoint: what an honest `.metadata` holds.

Source: torch 2.13 `torch/distributed/checkpoint/metadata.py` and `filesystem.py`; the older homes
of the same classes (`torch.distributed._shard.checkpoint`, `torch.distributed._shard.
sharded_tensor.metadata`). They are dataclasses without `__setstate__`: pickle puts the fields
into their `__dict__` and calls nothing, also where they are frozen. TensorProperties has one,
which unpacks five values and compares one of them with the members of an enum.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorkeep.dtypes import BY_NAME
from tensorkeep.pickles import Call, Global
from tensorkeep.scanning._allow_kinds import (
    EffectRule,
    Entry,
    KindOf,
    is_named,
    native_kind,
    takes,
)

_NEW = "torch.distributed.checkpoint.metadata"
_OLD = "torch.distributed._shard.checkpoint.metadata"
_SHARDED = "torch.distributed._shard.sharded_tensor.metadata"
_HOMES = (_NEW, _OLD)
_FILES = (
    "torch.distributed.checkpoint.filesystem",
    "torch.distributed._shard.checkpoint.filesystem",
)

Field = Callable[[object], bool]


def _native(*kinds: str) -> Field:
    return lambda value: native_kind(value) in kinds


def _made(*modules: str, name: str) -> Field:
    """Whether a value is made by a call of this class."""

    def field(value: object) -> bool:
        func = value.func if isinstance(value, Call) else None
        return any(is_named(func, module, name) for module in modules)

    return field


def _either(*fields: Field) -> Field:
    return lambda value: any(field(value) for field in fields)


_NUMBERS = _either(_made("torch", name="Size"), _native("tuple", "list"))
_LAYOUT = _made("torch.serialization", name="_get_layout")
_ENCODING = _either(
    _made(_NEW, name="_MEM_FORMAT_ENCODING"), _made(_SHARDED, name="MEM_FORMAT_ENCODING")
)
_TEXT = _native("str", "none")
_DICT = _native("dict", "none")


def _fields(**allowed: Field) -> dict[str, EffectRule]:
    """BUILD with a dictionary of these fields and no others."""

    def rule(_: Call, args: tuple[object, ...]) -> bool:
        state = args[0] if len(args) == 1 else None
        if type(state) is not dict:
            return False
        return all(
            type(key) is str and key in allowed and allowed[key](value)
            for key, value in state.items()
        )

    return {"BUILD": rule}


def _class(module: str, name: str, effects: dict[str, EffectRule]) -> Entry:
    why = "is a dataclass that holds what it is given and calls nothing"
    return Entry(
        module, name, why, instance=True, rule=takes(), makes=f"dcp-{name}", effects=effects
    )


def _encoding(args: tuple[object, ...], _: KindOf) -> bool:
    return len(args) == 1 and type(args[0]) is int and args[0] in (0, 1, 2)


def _enum(module: str, name: str) -> Entry:
    why = "looks a member of an enum up by its number"
    return Entry(
        module,
        name,
        why,
        call=True,
        rule=_encoding,
        makes="memory-format",
        fresh=False,
        bounded=True,
    )


def _properties(_: Call, args: tuple[object, ...]) -> bool:
    """(dtype, layout, requires_grad, encoding, pin_memory), as `__setstate__` unpacks them."""
    state = args[0] if len(args) == 1 else None
    if type(state) is not tuple or len(state) != 5:
        return False
    dtype, layout, grad, encoding, pinned = state
    return (
        _is_dtype(dtype)
        and _LAYOUT(layout)
        and _ENCODING(encoding)
        and type(grad) is type(pinned) is bool
    )


def _is_dtype(value: object) -> bool:
    return isinstance(value, Global) and value.module == "torch" and value.name in BY_NAME


_METADATA = _fields(
    state_dict_metadata=_DICT,
    planner_data=_DICT,
    storage_data=_DICT,
    storage_meta=_either(_native("none"), _made(*_HOMES, name="StorageMeta")),
    version=_TEXT,
)
_TENSOR = _fields(
    properties=_made(_NEW, _SHARDED, name="TensorProperties"), size=_NUMBERS, chunks=_native("list")
)
_CHUNK = _fields(offsets=_NUMBERS, sizes=_NUMBERS)
_INDEX = _fields(
    fqn=_native("str"), offset=_either(_NUMBERS, _native("none")), index=_native("int", "none")
)
_META = _fields(
    checkpoint_id=_either(
        _TEXT,
        _made("pathlib", "pathlib._local", name="PosixPath"),
        _made("pathlib", "pathlib._local", name="WindowsPath"),
    ),
    save_id=_TEXT,
    load_id=_TEXT,
    modules=_native("list"),
)
_INFO = _fields(
    relative_path=_native("str"),
    offset=_native("int"),
    length=_native("int"),
    transform_descriptors=_native("list", "tuple", "none"),
)

ENTRIES: tuple[Entry, ...] = (
    *(_class(home, "Metadata", _METADATA) for home in _HOMES),
    *(_class(home, "TensorStorageMetadata", _TENSOR) for home in _HOMES),
    *(_class(home, "BytesStorageMetadata", _fields()) for home in _HOMES),
    *(_class(home, "ChunkStorageMetadata", _CHUNK) for home in _HOMES),
    *(_class(home, "MetadataIndex", _INDEX) for home in _HOMES),
    _class(_NEW, "StorageMeta", _META),
    *(_class(home, "_StorageInfo", _INFO) for home in _FILES),
    *(_class(home, "TensorProperties", {"BUILD": _properties}) for home in (_NEW, _SHARDED)),
    _enum(_NEW, "_MEM_FORMAT_ENCODING"),
    _enum(_SHARDED, "MEM_FORMAT_ENCODING"),
)
