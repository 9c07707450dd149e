"""Random checkpoints: views of shared storages in nested dicts, with plain values between them."""

from __future__ import annotations

import io
from collections import OrderedDict

import torch
from hypothesis import strategies as st

from tensorkeep.dtypes import BY_NAME

CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = [d.name for d in BY_NAME.values() if d.safetensors]
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="."), max_size=8)


def bits(tensor):
    # numpy writes any strides out contiguous; its integers have no NaN to be changed.
    return tensor.detach().view(CARRIERS[tensor.dtype.itemsize]).numpy().tobytes()


@st.composite
def storages(draw):
    """Random bytes as elements of a random dtype; as long as the views below need at most."""
    dtype = getattr(torch, draw(st.sampled_from(DTYPES)))
    length = draw(st.integers(0, 40))
    seed = draw(st.integers(0, 2**16))
    count = length * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    if dtype is torch.bool:
        data &= 1
    return data.view(CARRIERS[dtype.itemsize]), dtype


@st.composite
def views(draw, pool):
    """A view of one of the storages with any strides that stay inside it."""
    carrier, dtype = draw(st.sampled_from(pool))
    if carrier.numel() == 0:
        shape = draw(st.lists(st.integers(0, 3), max_size=2))
        return carrier.new_empty([*shape, 0]).view(dtype)
    offset = draw(st.integers(0, carrier.numel() - 1))
    room = carrier.numel() - 1 - offset
    least = 1 if dtype is torch.float4_e2m1fn_x2 else 0
    shape, stride = [], []
    for _ in range(draw(st.integers(least, 4))):
        size = draw(st.integers(0, 5))
        step = draw(st.integers(0, room // (size - 1) if size > 1 else 7))
        room -= max(size - 1, 0) * step
        shape.append(size)
        stride.append(step)
    view = carrier.as_strided(shape, stride, offset).view(dtype)
    if draw(st.booleans()) and dtype.is_floating_point:
        view = torch.nn.Parameter(view, requires_grad=False)
    return view


@st.composite
def checkpoints(draw):
    """Nested dicts of such views, with plain values between them and tensors used twice."""
    pool = draw(st.lists(storages(), min_size=1, max_size=4))
    leaves = draw(st.lists(views(pool), min_size=1, max_size=6))
    leaf = st.sampled_from(leaves) | st.integers() | st.text(max_size=3) | st.none()
    tree = st.recursive(leaf, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=10)
    value = draw(st.dictionaries(KEYS, tree, max_size=4))
    value["weights"] = OrderedDict({"first": leaves[0], "again": leaves[0]})
    return value


def flat(value, path=()):
    if isinstance(value, torch.Tensor):
        return {".".join(path): value}
    pairs = value.items() if isinstance(value, dict) else ()
    return {name: t for key, item in pairs for name, t in flat(item, (*path, key)).items()}


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
