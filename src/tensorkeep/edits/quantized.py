"""Which tensors become int8, why the others stay as they are, and how other readers are told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from tensorkeep.edits._rounding import SOURCES, Rooms
from tensorkeep.edits.arrays import Array
from tensorkeep.edits.int8 import FLOAT32, SCALE, Pair
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import NameCollision, NothingSelected, Unwritable

LEAST = 4096
# What a module is called, as far as its name tells what it is. Searched for in lower case in the
# part of the name before `weight`.
_EMBEDDING = re.compile(r"embed(?!_out)|(^|_)emb($|_)|^w[tp]e$|^shared$|^relative_attention_bias$")
_NORM = re.compile(r"(layer|rms|group|batch|^|_)norm(_|\d*$)|^(ln|bn)(_|\d*$)")
_HEAD = re.compile(r"^(lm_head|embed_out)$")
# What other quantisers leave in the place of a weight, or beside it.
_PACKED = ("qweight", "weight_packed")
_CODES = frozenset({"int8", "uint8", "int32", "float8_e4m3fn", "float8_e5m2"})
_SCALES = (SCALE, "_scale_inv")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is quantised: weights of 2 dimensions or, with `conv`, more, of `min_size` elements.

    Not embeddings, heads and norms, which `embeddings`, `lm_head` and `only` (globs; where given,
    nothing else is) take in; and never what `skip` (globs) names.
    """

    embeddings: bool = False
    lm_head: bool = False
    conv: bool = False
    min_size: int = LEAST
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def refusal(self, name: str, array: Array) -> str:
        """Why the tensor stays as it is; "" if it does not."""
        for why in (self._by_type(array), self._by_glob(name), self._by_name(name)):
            if why:
                return why
        return self._by_shape(array)

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """The globs that no name matches."""
        known = list(names)
        return [
            pattern
            for pattern in (*self.only, *self.skip)
            if not any(fnmatchcase(name, pattern) for name in known)
        ]

    def _by_type(self, array: Array) -> str:
        if not array.dtype.is_floating:
            return f"not floating point ({array.dtype})"
        if array.dtype.name not in SOURCES:
            return f"8 bits already ({array.dtype})"
        return "" if len(array.shape) > 1 else "fewer than 2 dimensions"

    def _by_glob(self, name: str) -> str:
        if any(fnmatchcase(name, pattern) for pattern in self.skip):
            return "in --skip"
        taken = not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)
        return "" if taken else "not in --only"

    def _by_name(self, name: str) -> str:
        if self.only:
            return ""
        module, _, leaf = name.lower().rpartition(".")
        what = module.rpartition(".")[2]
        if not leaf.endswith("weight"):
            return "not called weight"
        if _NORM.search(what):
            return "norm"
        if _EMBEDDING.search(what):
            return "" if self.embeddings else "embedding (--embeddings)"
        if _HEAD.search(what) or module == "output":
            return "" if self.lm_head else "head (--lm-head)"
        return ""

    def _by_shape(self, array: Array) -> str:
        if len(array.shape) > 2 and not self.conv:
            return "more than 2 dimensions (--conv)"
        if not array.numel:
            return "no elements"
        if array.numel < self.min_size:
            return f"fewer than {self.min_size} elements (--min-size)"
        columns = prod(array.shape[1:])
        if columns * array.dtype.itemsize <= columns + FLOAT32.itemsize:
            return "no smaller in int8"
        return ""


@dataclass(slots=True)
class Selection:
    """Pairs by name, tied names with the same one; and the reason for what is kept, by name."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


def quantize_inventory(inventory: Inventory, rules: Rules) -> Selection:
    """Put codes and scales in the place of the weights that `rules` take.

    Tied tensors are quantised once, or none of them. Raises `NothingSelected` if there is nothing
    to quantise, `Unwritable` for what is quantised already, `NameCollision`.
    """
    _refuse_quantized(inventory)
    found = Selection()
    refused: dict[Array, str] = {}
    for name, array in inventory.tensors.items():
        why = rules.refusal(name, array)
        if why:
            found.kept[name] = why
            refused.setdefault(array, name)
    made: dict[Array, Pair] = {}
    rooms = Rooms()
    for name, array in inventory.tensors.items():
        if name in found.kept:
            continue
        if array in refused:
            other = refused[array]
            found.kept[name] = f"tied to {other}, which stays: {found.kept[other]}"
            continue
        found.pairs[name] = made.setdefault(array, Pair(name, array, rooms))
    if not found.pairs:
        raise _nothing(inventory, found)
    _replace(inventory, found)
    return found


def _refuse_quantized(inventory: Inventory) -> None:
    for name, array in inventory.tensors.items():
        packed = name.rpartition(".")[2] in _PACKED
        scaled = any(name + scale in inventory for scale in _SCALES)
        if packed or (scaled and array.dtype.name in _CODES):
            raise Unwritable(
                inventory.subject,
                expected="weights that were not quantised yet",
                got=f"{array.dtype} {list(array.shape)}",
                where=name,
                remedy="Quantise the model that this was made from.",
            )


def _nothing(inventory: Inventory, found: Selection) -> NothingSelected:
    reasons: dict[str, int] = {}
    for why in found.kept.values():
        reasons[why] = reasons.get(why, 0) + 1
    told = ", ".join(f"{count} {why}" for why, count in reasons.items())
    return NothingSelected(
        inventory.subject,
        expected="at least one tensor to quantise",
        got=f"none: {told}" if told else "no tensors",
        remedy="Name what to quantise with --only, or allow smaller tensors with --min-size.",
    )


def _replace(inventory: Inventory, found: Selection) -> None:
    tensors: dict[str, Array] = {}
    for name, array in inventory.tensors.items():
        pair = found.pairs.get(name)
        if pair is None:
            tensors[name] = array
            continue
        scale = name + SCALE
        if scale in inventory:
            raise NameCollision(
                inventory.subject,
                expected="a name that is free for the scales",
                got=f"{scale!r}, which another tensor has",
                remedy=f"Keep this weight as it is: --skip '{name}'.",
            )
        tensors[name], tensors[scale] = pair.weight, pair.scale
        inventory.origin[scale] = inventory.origin.get(name, ())
    inventory.tensors = tensors


def strangers(found: Selection) -> list[str]:
    """What is quantised and is no weight of a Linear, or of an Embedding, by its name and shape."""
    return [
        name
        for name, pair in found.pairs.items()
        if not name.endswith(".weight") or len(pair.of.shape) != 2
    ]


def quantization_config(found: Selection, inventory: Inventory) -> dict[str, Any]:
    """What `config.json` says under this key, for compressed-tensors.

    As `compressed_tensors.quantization.QuantizationConfig` 0.20 reads it: all modules of the
    classes in `targets` are quantised but for those that `ignore` names. `weight` is int8,
    `weight_scale` [out, 1].
    """
    embedded = any(_EMBEDDING.search(_parent(name)) for name in found.pairs)
    weights = {
        "num_bits": 8,
        "type": "int",
        "symmetric": True,
        "strategy": "channel",
        "dynamic": False,
        "scale_dtype": "torch.float32",
    }
    group = {
        "targets": ["Linear", "Embedding"] if embedded else ["Linear"],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": "int-quantized",
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": _ignored(found, inventory.tensors, embedded=embedded),
    }


def _parent(name: str) -> str:
    return name.lower().rpartition(".")[0].rpartition(".")[2]


def _ignored(found: Selection, tensors: Mapping[str, Array], *, embedded: bool) -> list[str]:
    """The modules of kept weights that may be of a class in `targets`."""
    names = [
        name.removesuffix(".weight")
        for name in found.kept
        if name.endswith(".weight")
        and len(tensors[name].shape) == 2
        and (embedded or not _EMBEDDING.search(_parent(name)))
    ]
    # A head that is tied to an embedding may have no entry of its own in the file.
    if not any(name.endswith("lm_head.weight") for name in (*found.pairs, *found.kept)):
        names.append("lm_head")
    return names
