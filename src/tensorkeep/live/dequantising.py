"""int8 codes with their scales, as `quantize` writes them, for a module that wants floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.dtypes import DType
from tensorkeep.edits.applying import apply
from tensorkeep.edits.arrays import Stored
from tensorkeep.edits.dequantized import Dequantize, Dequantized
from tensorkeep.edits.int8 import INT8, SCALE
from tensorkeep.edits.inventory import Inventory
from tensorkeep.live.incoming import Incoming, Source


def pairs(sources: Mapping[str, Source]) -> list[str]:
    """The int8 tensors with a scale beside them: one number, or one for each output channel.

    Not where a zero point or scales of another shape are there: what these mean is not known.
    """
    found = []
    for name, codes in sources.items():
        scale = sources.get(name + SCALE)
        if scale is None or name + "_zero_point" in sources:
            continue
        if _dtype(codes) is INT8 and _dtype(scale).is_floating and _per_channel(codes, scale):
            found.append(name)
    return found


def takes_codes(tensors: Mapping[str, torch.Tensor], name: str) -> bool:
    """Whether the module that has `tensors` wants `name` as codes, or has no such tensor."""
    return name not in tensors or name + SCALE in tensors or not tensors[name].is_floating_point()


def may_take_codes(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether any tensor of the module may be meant for codes: a look, before names are known."""
    return any(tensor.dtype == torch.int8 for tensor in tensors.values()) or any(
        name.endswith(SCALE) and name.removesuffix(SCALE) in tensors for name in tensors
    )


def dequantise(coming: Incoming, names: Iterable[str]) -> None:
    """Let `names` of `coming` be floats, in their place; their scales go. Nothing is read yet."""
    chosen = set(names)
    scales = {name + SCALE for name in chosen}
    sources = coming.sources
    held = {n: Stored(s) if isinstance(s, TensorRef) else s for n, s in sources.items()}
    inventory = Inventory(coming.ckpt.path, {n: held[n] for n in (*chosen, *scales)})
    apply(inventory, [Dequantize()])
    coming.sources = {
        name: inventory[name] if name in chosen else source
        for name, source in sources.items()
        if name not in scales
    }


def stored_bytes(source: Source) -> int:
    """Of codes and scales that are read for floats, which are more; 0 for another source."""
    return source.of.nbytes + source.scale.nbytes if isinstance(source, Dequantized) else 0


def _dtype(source: Source) -> DType:
    return source.record.dtype if isinstance(source, TensorRef) else source.dtype


def _shape(source: Source) -> tuple[int, ...]:
    return source.record.shape if isinstance(source, TensorRef) else source.shape


def _per_channel(codes: Source, scale: Source) -> bool:
    rows, shape = _shape(codes)[:1], _shape(scale)
    return all(size == 1 for size in shape) or (
        shape[:1] == rows and all(size == 1 for size in shape[1:])
    )
