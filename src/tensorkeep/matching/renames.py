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
    Of several tensors of equal bytes (zeros, ones) those are paired whose names have the same
    numbers and the same last part, if that is one on each side; the rest in their order, if there
    are as many and those agree all along; else they count as ambiguous. Empty tensors are never
    called renamed. Raises what reading raises.
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


def _pair(old: Sequence[str], new: Sequence[str], found: Renames) -> None:
    """Pair names of tensors with equal bytes: by what they keep, then by their order."""
    if len(old) == len(new) == 1:
        found.pairs[old[0]] = new[0]
        return
    kept = _once(old), _once(new)
    sure = {name: kept[1][key] for key, name in kept[0].items() if key in kept[1]}
    found.pairs |= sure
    taken = set(sure.values())
    old = [name for name in old if name not in sure]
    new = [name for name in new if name not in taken]
    if len(old) == len(new) and list(map(_kept, old)) == list(map(_kept, new)):
        found.pairs |= dict(zip(old, new, strict=True))
    elif new:
        found.ambiguous += len(old)


def _kept(name: str) -> tuple[object, ...]:
    """What a rename leaves as it was: the numbers in a name, and its last part."""
    return (*_NUMBER.findall(name), name.rpartition(".")[2])


def _once(names: Sequence[str]) -> dict[tuple[object, ...], str]:
    """The names that no other equals in what a rename keeps, by that."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        groups.setdefault(_kept(name), []).append(name)
    return {key: group[0] for key, group in groups.items() if len(group) == 1}
