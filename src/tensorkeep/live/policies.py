"""What may become of a tensor's dtype on its way into a module, and what that loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tensorkeep.dtypes import find
from tensorkeep.errors import BadArgument

# Elements cast at a time while losses are counted.
_STEP = 1 << 20
# Two numbers to an element: torch moves them, and computes nothing with them.
_PACKED = getattr(torch, "float4_e2m1fn_x2", None)
_WORDS = ("cast", "exact", "keep")


@dataclass(frozen=True, slots=True)
class CastOf:
    """A tensor that was cast. `overflowed`: finite values that the new dtype cannot hold;
    `underflowed`: values that became zero. Both of `elements`.
    """

    name: str
    file: str
    model: str
    elements: int
    overflowed: int = 0
    underflowed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {slot: getattr(self, slot) for slot in self.__slots__}


class DtypePolicy:
    """`given` as the caller has it: "cast" (None too), "exact", "keep", or a dtype for all floats.

    Raises `BadArgument` for anything else.
    """

    def __init__(self, given: object) -> None:
        self.word = "cast" if given is None else given if given in _WORDS else "to"
        self.dtype: torch.dtype | None = None
        if self.word == "to":
            known = find(str(given)) if isinstance(given, str | torch.dtype) else None
            if known is None or not known.is_floating:
                raise BadArgument(
                    "dtype",
                    expected="'cast', 'exact', 'keep' or a floating point dtype",
                    got=repr(given),
                )
            self.dtype = getattr(torch, known.name)

    def of(self, file: torch.dtype, model: torch.dtype) -> torch.dtype | None:
        """What the tensor in the module shall have; None if the two do not go together."""
        if self.word == "exact":
            return model if file == model else None
        if self.word == "keep":
            return file if _kind(file) == _kind(model) else None
        wanted = model
        if self.dtype is not None and is_real(model):
            wanted = self.dtype
        return wanted if file == wanted or _kind(file) == _kind(wanted) else None


def is_real(dtype: torch.dtype) -> bool:
    """Whether its elements are single floating point numbers, which can be cast."""
    return dtype.is_floating_point and dtype != _PACKED


def _kind(dtype: torch.dtype) -> str:
    """Dtypes that are cast into each other: an integer that becomes a float lost its scale."""
    if is_real(dtype):
        return "float"
    if dtype.is_complex:
        return "complex"
    if dtype == torch.bool or not str(dtype).removeprefix("torch.").lstrip("u").startswith("int"):
        return str(dtype)
    return "integer"


def cast(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, CastOf]:
    """`tensor` as elements of `dtype`, and what that lost."""
    record = (name, _name(tensor.dtype), _name(dtype), tensor.numel())
    if not tensor.is_contiguous() or not _narrows(tensor.dtype, dtype):
        return tensor.to(dtype), CastOf(*record)
    made = torch.empty(tensor.shape, dtype=dtype, device=tensor.device)
    source, target = tensor.view(-1), made.view(-1)
    over = under = 0
    for at in range(0, source.numel(), _STEP):
        a, b = source[at : at + _STEP], target[at : at + _STEP]
        b.copy_(a)
        more, less = _lost(a, b)
        over, under = over + more, under + less
    return made, CastOf(*record, overflowed=over, underflowed=under)


def _lost(before: torch.Tensor, after: torch.Tensor) -> tuple[int, int]:
    """Values that overflowed, and those that became zero."""
    if not before.is_floating_point():
        return _lost_integers(before, after), 0
    # torch has no arithmetic of most small floats, and some of them have no zero.
    wide = torch.float64 if torch.float64 in (before.dtype, after.dtype) else torch.float32
    limit = torch.finfo(after.dtype).max if after.dtype.itemsize == 1 else None
    before, after = before.to(wide), after.to(wide)
    finite = before.isfinite()
    over = finite & ~after.isfinite()
    if limit is not None:  # these saturate
        over |= finite & (before.abs() > limit)
    return int(over.sum()), int(((after == 0) & (before != 0)).sum())


def _lost_integers(before: torch.Tensor, after: torch.Tensor) -> int:
    one, two = before.to(torch.int64), after.to(torch.int64)
    lost = one != two
    if before.dtype.is_signed != after.dtype.is_signed:
        lost |= one < 0  # the same bits, and another number
    return int(lost.sum())


def _narrows(a: torch.dtype, b: torch.dtype) -> bool:
    if a.is_floating_point:
        one, two = torch.finfo(a), torch.finfo(b)
        return two.max < one.max or two.tiny > one.tiny or two.bits < one.bits
    if a.is_complex:
        return False
    return torch.iinfo(b).max < torch.iinfo(a).max or torch.iinfo(b).min > torch.iinfo(a).min


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
