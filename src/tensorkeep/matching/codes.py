"""int8 codes with their scales, in a file for a model that wants floats."""

from __future__ import annotations

from collections import Counter

from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.dequantized import Dequantize
from tensorkeep.edits.int8 import SCALE
from tensorkeep.matching.specs import Spec, Specs

_POINT = "_zero_point"


def dequantised(file: Specs, model: Specs) -> tuple[Specs, Dequantize | None, list[str]]:
    """The file as it is with floats in the place of its codes, the edit that makes them, and which.

    The file itself where the model wants codes, or where what they mean is not known: a zero point
    beside them, or scales that are neither one nor one for each output channel.
    """
    pairs = [name for name in file if name + SCALE in file and file[name].dtype == "int8"]
    pairs = [name for name in pairs if _is_float(file[name + SCALE])]
    if not pairs or _wants_codes(model) or not all(_is_known(name, file) for name in pairs):
        return file, None, []
    to = _floats_of(model)
    scales = {name + SCALE for name in pairs}
    made = {name: Spec(to, file[name].shape) for name in pairs}
    left = {name: made.get(name, spec) for name, spec in file.items() if name not in scales}
    return left, Dequantize(to), pairs


def _is_known(name: str, file: Specs) -> bool:
    rows, scale = file[name].shape[:1], file[name + SCALE].shape
    one = all(size == 1 for size in scale)
    each = scale[:1] == rows and all(size == 1 for size in scale[1:])
    return (one or each) and name + _POINT not in file


def _wants_codes(model: Specs) -> bool:
    return any(
        spec.dtype == "int8" or (name.endswith(SCALE) and name.removesuffix(SCALE) in model)
        for name, spec in model.items()
    )


def _floats_of(model: Specs) -> str:
    """What most of its floats are."""
    kinds = Counter(spec.dtype for spec in model.values() if _is_float(spec))
    return kinds.most_common(1)[0][0] if kinds else "float32"


def _is_float(spec: Spec) -> bool:
    return spec.dtype in BY_NAME and BY_NAME[spec.dtype].is_floating
