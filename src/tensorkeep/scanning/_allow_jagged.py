"""Allowlisted names of jagged nested tensors: `torch.nested.nested_tensor(layout=torch.jagged)`.

Source: torch 2.13 `torch/nested/_internal/nested_tensor.py` (`NestedTensor.__reduce_ex__`, which
hands its parts to `_rebuild_njt` by name and its attributes on top) and
`torch/_dynamo/decorators.py` (`_DimRange`, a frozen dataclass with which the sizes in its cache
are marked; its `__setstate__` is the one that dataclasses with slots get, and sets the fields).
"""

from __future__ import annotations

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import Entry, KindOf, is_named

_MODULE = "torch.nested._internal.nested_tensor"
_CACHED = frozenset({"max_seqlen", "min_seqlen"})
# What NestedTensor(...) takes, and by which kinds.
_PARTS: dict[str, tuple[str, ...]] = {
    "values": ("tensor",),
    "offsets": ("tensor",),
    "lengths": ("tensor", "none"),
    "_ragged_idx": ("int",),
    "_metadata_cache": ("dict",),
    "requires_grad": ("bool",),
}
# Its attributes afterwards: the same parts once more, and the marks of torch's compiler.
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "_values": ("tensor",),
    "_offsets": ("tensor",),
    "_lengths": ("tensor", "none"),
    "_ragged_idx": ("int",),
    "_metadata_cache": ("dict",),
    "_dynamo_propagated_dynamic_indices": ("set",),
}


def jagged(args: tuple[object, ...], kind: KindOf) -> bool:
    """Whether `_rebuild_from_type_v2(*args)` makes a jagged tensor out of tensors of the file."""
    rebuild, cls, given, state = args
    if not is_named(rebuild, _MODULE, "_rebuild_njt") or not is_named(cls, _MODULE, "NestedTensor"):
        return False
    if type(given) is not tuple or len(given) != 1:
        return False
    return _fits(given[0], _PARTS, kind) and _fits(state, _ATTRIBUTES, kind)


def _fits(value: object, table: dict[str, tuple[str, ...]], kind: KindOf) -> bool:
    if type(value) is not dict or not all(type(key) is str for key in value):
        return False
    good = all(key in table and kind(part) in table[key] for key, part in value.items())
    cache = value.get("_metadata_cache", {})
    return good and all(key in _CACHED and kind(part) == "tensor" for key, part in cache.items())


def _bounds(_: Call, args: tuple[object, ...]) -> bool:
    """The state of a `_DimRange`: a dimension, and the least and largest size of it."""
    state = args[0] if len(args) == 1 else None
    if type(state) is not list or len(state) != 3:
        return False
    return all(type(part) in (int, type(None)) for part in state)


def _nothing(args: tuple[object, ...], _: KindOf) -> bool:
    return not args


ENTRIES: tuple[Entry, ...] = (
    Entry(_MODULE, "_rebuild_njt", "is only mentioned", reference="jagged-rebuild"),
    Entry(_MODULE, "NestedTensor", "is only mentioned", reference="jagged-class"),
    Entry(
        "torch._dynamo.decorators",
        "_DimRange",
        "holds three numbers",
        instance=True,
        rule=_nothing,
        makes="dim-range",
        effects={"BUILD": _bounds},
    ),
)
