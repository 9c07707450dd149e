"""Tensors that changed their name and nothing else: same dtype, same shape, same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tensorkeep.checkpoints.tensor import TensorRef

# Equal beginnings are rare among tensors that are not equal: it spares reading most of them.
_BEGINNING = 1 << 12
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")

_Refs = Mapping[str, TensorRef]
_By = Callable[[TensorRef], object]


@dataclass(slots=True)
class Renames:
    """`pairs`: old name to new. `ambiguous`: how many old names fit several new ones."""

    pairs: dict[str, str] = field(default_factory=dict)
    ambiguous: int = 0


def find(removed: Mapping[str, TensorRef], added: Mapping[str, TensorRef]) -> Renames:
    """Which of `removed` is which of `added`.

    Only tensors whose dtype, shape and first bytes occur on both sides are read to their end.
    Several tensors of equal bytes (zeros, ones) are paired in their order if there are as many on
    both sides and the numbers and last parts of their names agree; else they count as ambiguous.
    Empty tensors are never called renamed. Raises what reading raises.
    """
    found = Renames()
    _split(removed, added, [_kind, _beginning, TensorRef.digest], found)
    return found


def _split(old: _Refs, new: _Refs, keys: Sequence[_By], found: Renames) -> None:
    """Group both sides by the first key, and groups that are on both by the next."""
    if not keys:
        _pair(list(old), list(new), found)
        return
    key, *rest = keys
    groups = _grouped(new, key)
    for value, members in _grouped(old, key).items():
        if value in groups:
            _split(members, groups[value], rest, found)


def _grouped(refs: _Refs, key: _By) -> dict[object, dict[str, TensorRef]]:
    groups: dict[object, dict[str, TensorRef]] = {}
    for name, ref in refs.items():
        if ref.nbytes:
            groups.setdefault(key(ref), {})[name] = ref
    return groups


def _kind(ref: TensorRef) -> object:
    return (ref.dtype, ref.shape)


def _beginning(ref: TensorRef) -> bytes:
    count = max(_BEGINNING // ref.record.dtype.itemsize, 1)
    return b"".join(map(bytes, ref.blocks(stop=min(count, ref.record.numel))))


def _pair(old: list[str], new: list[str], found: Renames) -> None:
    if len(old) == len(new) and (len(old) == 1 or _order(old) == _order(new)):
        found.pairs |= dict(zip(old, new, strict=True))
    else:
        found.ambiguous += len(old)


def _order(names: list[str]) -> list[tuple[list[str], str]]:
    """What a rename leaves as it was: the numbers in each name, and its last part."""
    return [(_NUMBER.findall(name), name.rpartition(".")[2]) for name in names]
