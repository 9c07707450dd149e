"""Which edit makes a tensor of one shape one of another, told by its name and both shapes."""

from __future__ import annotations

import re
from math import isqrt

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.resizing import InflateConv, Resize, ResizePositions
from tensorkeep.edits.shaping import Reshape, Transpose

POSITION = re.compile(r"pos(ition)?_?emb|position_embeddings|wpe([._]|$)|relative_position", re.I)
WORDS = re.compile(r"embed|wte([._]|$)|lm_head|vocab|tok_", re.I)
_IMAGE = re.compile(r"vis(ion|ual)|vit|patch|image|relative_position", re.I)
# Tokens in front of a grid of patches: a class token, none, a class and a distillation token.
_PREFIXES = (1, 0, 2)
# More input channels than that are no image's: another width of the model.
_CHANNELS = 4
# Kernels of TensorFlow have their channels last, input before output; depthwise ones otherwise.
_KERNELS = {3: ((2, 1, 0),), 4: ((3, 2, 0, 1), (2, 3, 0, 1)), 5: ((4, 3, 0, 1, 2),)}

_Shape = tuple[int, ...]


def edit_for(name: str, file: _Shape, model: _Shape, pattern: str) -> Edit | None:
    """The edit of what `pattern` matches, for the tensor `name`; None where nothing is known."""
    if len(file) == 2 and file[::-1] == model:
        return Transpose(pattern)
    if POSITION.search(name):
        return _positions(name, file, model, pattern)
    if len(file) != len(model):
        squeezed = [tuple(size for size in shape if size != 1) for shape in (file, model)]
        return Reshape(pattern, model) if squeezed[0] == squeezed[1] else None
    if file[1:] == model[1:] and WORDS.search(name):
        return Resize(pattern, model[0], fill="mean" if model[0] > file[0] else "zeros")
    dims = [dims for dims in _KERNELS.get(len(file), ()) if _turned(file, dims) == model]
    if len(dims) == 1:
        return Transpose(pattern, dims[0])
    if len(file) > 2 and _without_channels(file) == _without_channels(model):
        return InflateConv(pattern, model[1]) if min(file[1], model[1]) <= _CHANNELS else None
    return None


def _turned(shape: _Shape, dims: _Shape) -> _Shape:
    return tuple(shape[at] for at in dims)


def _without_channels(shape: _Shape) -> _Shape:
    return shape[:1] + shape[2:]


def _positions(name: str, file: _Shape, model: _Shape, pattern: str) -> Edit | None:
    """Patches are resampled on their grid; the positions of a text are cut, or resampled."""
    alike = len(file) == len(model) and file[:-2] == model[:-2] and file[-1:] == model[-1:]
    if not alike or len(file) not in (2, 3):
        return None
    before, after = file[-2], model[-2]
    image = len(file) == 3 or _IMAGE.search(name)
    for prefix in _PREFIXES:
        # 1024 positions of a text are no square of 32 patches.
        if (prefix or image) and _is_square(before - prefix) and _is_square(after - prefix):
            side = isqrt(after - prefix)
            return ResizePositions(pattern, (side, side), prefix=prefix)
    if after < before:
        return Resize(pattern, after, dim=len(file) - 2)
    return ResizePositions(pattern, (after,), old=(before,), prefix=0)


def _is_square(count: int) -> bool:
    return count > 1 and isqrt(count) ** 2 == count
