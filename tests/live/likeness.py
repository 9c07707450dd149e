"""Where two loaded values differ: the same types, keys, order, dtypes, strides and bits."""

from __future__ import annotations

import collections
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tensorkeep.formats.contents import Inert

Place = tuple[Any, ...]


def differences(wanted: Any, found: Any, place: Place = ()) -> Iterator[str]:
    """A line for each difference. Values that only running the file would make are none."""
    if isinstance(found, Inert):
        return
    if type(wanted) is not type(found):
        yield f"{place}: {type(wanted)} is {type(found)}"
    elif isinstance(wanted, torch.Tensor):
        yield from (f"{place}: {what}" for what in _tensors(wanted, found))
    elif isinstance(wanted, weakref.ref):
        yield from differences(wanted(), found(), place)
    elif isinstance(wanted, dict):
        yield from _dicts(wanted, found, place)
    elif isinstance(wanted, list | tuple | collections.deque):
        if len(wanted) != len(found):
            yield f"{place}: {len(wanted)} items are {len(found)}"
        for at, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from differences(one, other, (*place, at))
    elif isinstance(wanted, np.ndarray | np.generic):
        if wanted.dtype != found.dtype or wanted.tobytes() != found.tobytes():
            yield f"{place}: {wanted!r} is {found!r}"
    elif isinstance(wanted, torch.TypedStorage):
        if list(wanted) != list(found):
            yield f"{place}: another storage"
    elif hasattr(wanted, "__dict__") and not isinstance(wanted, type):
        yield from _dicts(vars(wanted), vars(found), place)
    elif wanted != found and wanted == wanted:
        yield f"{place}: {wanted!r} is {found!r}"


def _dicts(wanted: dict[Any, Any], found: dict[Any, Any], place: Place) -> Iterator[str]:
    if list(map(str, wanted)) != list(map(str, found)):
        yield f"{place}: keys {list(wanted)} are {list(found)}"
        return
    for key, one, other in zip(wanted, wanted.values(), found.values(), strict=True):
        yield from differences(one, other, (*place, key))
    for name in ("_metadata", "default_factory"):
        if getattr(wanted, name, None) != getattr(found, name, None):
            yield f"{place}: another {name}"


def _tensors(wanted: torch.Tensor, found: torch.Tensor) -> Iterator[str]:
    for what in ("dtype", "layout", "requires_grad", "is_nested", "is_quantized"):
        if getattr(wanted, what) != getattr(found, what):
            yield f"{what} {getattr(wanted, what)} is {getattr(found, what)}"
            return
    if wanted.device.type == "meta":
        if found.device.type != "meta" or wanted.shape != found.shape:
            yield "another meta tensor"
    elif wanted.is_nested:
        for one, other in zip(wanted.unbind(), found.unbind(), strict=True):
            yield from _tensors(one, other)
    elif wanted.shape != found.shape:
        yield f"shape {list(wanted.shape)} is {list(found.shape)}"
    elif wanted.is_quantized:
        if not torch.equal(wanted.int_repr(), found.int_repr()):
            yield "other numbers"
    elif wanted.layout != torch.strided:
        if not torch.equal(wanted.to_dense(), found.to_dense()):
            yield "other values"
    elif wanted.stride() != found.stride():
        yield f"strides {wanted.stride()} are {found.stride()}"
    elif bits(wanted) != bits(found):
        yield "other bits"


def bits(tensor: torch.Tensor) -> bytes:
    """The values, conjugated and negated, as they lie contiguous."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return bytes(plain.untyped_storage())[plain.storage_offset() * plain.itemsize :][: plain.nbytes]
