"""Tensors that are made of tensors: sparse, quantised, nested; and bare storages.

What their indices say is checked before torch builds on them: it does not look by itself, and later
operations take every number for a position in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch

from tensorkeep.checkpoints.indices import check
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.errors import Damaged
from tensorkeep.facts import Limits
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Inert
from tensorkeep.live import storages, tensors
from tensorkeep.live.placing import Piece
from tensorkeep.live.tensors import torch_dtype

Parts = dict[str, torch.Tensor]


def can_build(value: object) -> bool:
    """Whether `value` is a tensor that can be put together here."""
    if not isinstance(value, Compound) or value.layout not in _BUILDERS:
        return False
    per_channel = value.layout == "quantized" and "axis" in value.details
    return not per_channel or {"scales", "zero_points"} <= value.parts.keys()


def build(value: Compound, name: str, limits: Limits, subject: str) -> torch.Tensor:
    """The tensor, on the CPU, in memory of its own. `can_build(value)` is true.

    Raises `Damaged` if its parts contradict each other, and what reading them raises.
    """
    wrong = [anomaly.what for anomaly in check([value], limits, subject)]
    if value.broken or wrong:
        got = wrong[0] if wrong else f"a {value.why} whose parts contradict each other"
        raise Damaged(subject, expected="a tensor that holds together", got=got, where=name)
    try:
        return _BUILDERS[value.layout](value)
    except (RuntimeError, TypeError, ValueError) as error:
        got = str(error).splitlines()[0]
        raise Damaged(subject, expected=f"a {value.why}", got=got, where=name) from error


def _parts(value: Compound) -> Parts:
    refs = {name: TensorRef(name, record, "") for name, record in value.parts.items()}
    return tensors.load(refs)


def _coo(value: Compound) -> torch.Tensor:
    parts = _parts(value)
    return torch.sparse_coo_tensor(
        parts["indices"],
        parts["values"],
        value.shape,
        is_coalesced=True if value.details.get("coalesced") else None,
        check_invariants=True,
    )


def _compressed(value: Compound) -> torch.Tensor:
    compressed, plain, values = _parts(value).values()
    return torch.sparse_compressed_tensor(
        compressed,
        plain,
        values,
        value.shape,
        layout=getattr(torch, value.layout),
        check_invariants=True,
    )


def _quantized(value: Compound) -> torch.Tensor:
    record = value.parts["int_repr"]
    whole = storage_of(value.parts["int_repr"].storage.nbytes, value)
    parts = dict(value.parts)
    del parts["int_repr"]
    more = tensors.load({name: TensorRef(name, each, "") for name, each in parts.items()})
    scheme, details = getattr(torch, str(value.details["scheme"])), value.details
    quantizer = (
        (scheme, more["scales"], more["zero_points"], details["axis"])
        if "axis" in details
        else (scheme, details["scale"], details["zero_point"])
    )
    typed = storages.typed(whole, torch_dtype(record.dtype))
    rebuilt: torch.Tensor = torch._utils._rebuild_qtensor(  # type: ignore[no-untyped-call]
        typed, record.offset, record.shape, record.stride, quantizer, False, OrderedDict()
    )
    return rebuilt


def _nested(value: Compound) -> torch.Tensor:
    parts = _parts(value)
    return torch._nested_view_from_buffer(
        parts["buffer"], parts["sizes"], parts["strides"], parts["offsets"]
    )


def _jagged(value: Compound) -> torch.Tensor:
    parts = _parts(value)
    return torch.nested.nested_tensor_from_jagged(
        parts["values"],
        parts["offsets"],
        parts.get("lengths"),
        jagged_dim=int(str(value.details["ragged"])),
    )


def storage_of(length: int, value: Compound) -> torch.UntypedStorage:
    """The first `length` bytes of the storage that the compound's first part lies in."""
    record = next(iter(value.parts.values()))
    record.check(record.storage.key)
    if not length:
        return storages.empty()
    return storages.read([Piece(record.storage, 0, length)])[0]


def bare_storage(value: Compound) -> object:
    """The storage that stands where a value is expected, as torch has it; or `value`."""
    if value.layout != "storage" or value.dtype is None:
        return value
    record = value.parts["data"]
    if record.storage.device == "meta" or record.storage.swapped > 1:
        return Inert("storage without values" if record.storage.device == "meta" else value.why)
    found = storage_of(record.storage.nbytes, value)
    return storages.typed(found, torch_dtype(value.dtype))


_BUILDERS: dict[str, Callable[[Compound], torch.Tensor]] = {
    "sparse_coo": _coo,
    "quantized": _quantized,
    "nested": _nested,
    "jagged": _jagged,
    **dict.fromkeys(("sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"), _compressed),
}
