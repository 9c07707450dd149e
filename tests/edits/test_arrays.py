"""Arrays give, run by run, what numpy and torch give at once."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.arrays import Cast, Filled, Stored, encoded, numbers
from tensorkeep.edits.shapes import Joined, Reshaped, permuted, reshaped, sliced
from tensorkeep.errors import BadArgument, Unwritable

SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)


def opened(*tensors):
    """The tensors as stored arrays, in one file."""
    file = io.BytesIO()
    torch.save({str(at): tensor for at, tensor in enumerate(tensors)}, file)
    return [Stored(ref) for ref in tk.open(file.getvalue()).tensors.values()]


def values(array):
    """All of it, in blocks, as numpy."""
    data = b"".join(bytes(piece) for piece in array.blocks())
    return np.frombuffer(data, array.dtype.numpy).reshape(array.shape)


def counted(shape):
    return torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)


@st.composite
def cases(draw):
    """A tensor, a dimension of it, and a random view in front of it."""
    shape = draw(SHAPES)
    tensor = counted(shape)
    if draw(st.booleans()):
        tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
    return tensor, draw(st.integers(0, len(shape) - 1))


def every_run(array, wanted, data):
    flat = wanted.contiguous().flatten().numpy()
    assert array.shape == tuple(wanted.shape)
    assert np.array_equal(values(array).reshape(-1), flat)
    start = data.draw(st.integers(0, flat.size))
    stop = data.draw(st.integers(start, flat.size))
    assert np.array_equal(array.codes(start, stop).view("<f4"), flat[start:stop])


@given(cases(), st.data())
def test_a_slice_is_torch_s_slice(case, data):
    tensor, dim = case
    begin = data.draw(st.integers(0, tensor.shape[dim]))
    end = data.draw(st.integers(begin, tensor.shape[dim]))
    [of] = opened(tensor)
    wanted = tensor.narrow(dim, begin, end - begin)
    every_run(sliced(of, dim, begin, end), wanted, data)
    # Of something computed, which has no strides to be read through.
    computed = Cast(Cast(of, BY_NAME["float64"]), BY_NAME["float32"])
    every_run(sliced(computed, dim, begin, end), wanted, data)


@given(cases(), st.data())
def test_a_join_is_torch_s_cat(case, data):
    tensor, dim = case
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    shapes = [(*tensor.shape[:dim], size, *tensor.shape[dim + 1 :]) for size in sizes]
    tensors = [tensor, *(counted(shape) + 1000 for shape in shapes)]
    every_run(Joined(tuple(opened(*tensors)), dim), torch.cat(tensors, dim), data)


@given(cases(), st.data())
def test_permutations_and_shapes(case, data):
    tensor, _ = case
    dims = tuple(data.draw(st.permutations(range(tensor.dim()))))
    [of] = opened(tensor)
    computed = Cast(Cast(of, BY_NAME["float64"]), BY_NAME["float32"])
    for array in (of, computed):
        every_run(permuted(array, dims), tensor.permute(dims), data)
        every_run(reshaped(array, (tensor.numel(), 1)), tensor.reshape(-1, 1), data)
        every_run(
            reshaped(permuted(array, dims), (tensor.numel(),)),
            tensor.permute(dims).reshape(-1),
            data,
        )


def test_a_slice_of_a_stored_tensor_is_stored():
    [of] = opened(counted((6, 4)))
    part = sliced(of, 0, 2, 5)
    assert part.stored is not None and part.stored.direct
    assert sliced(of, 0, 2, 5) == part and hash(sliced(of, 0, 2, 5)) == hash(part)
    assert sliced(of, 0, 1, 4) != part


def test_narrow_columns_are_read_row_by_row():
    [of] = opened(counted((50, 100)))
    computed = Cast(Cast(of, BY_NAME["float64"]), BY_NAME["float32"])
    assert np.array_equal(values(sliced(computed, 1, 7, 9)), counted((50, 100)).numpy()[:, 7:9])


@settings(max_examples=30)
@given(st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.int32]), SHAPES)
def test_a_cast_is_torch_s(dtype, shape):
    tensor = torch.randn(shape)
    [of] = opened(tensor)
    array = Cast(of, BY_NAME[str(dtype).removeprefix("torch.")])
    got = b"".join(bytes(piece) for piece in array.blocks())
    assert got == tensor.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()


def test_numbers_and_codes():
    tensor = torch.randn(3, 5).to(torch.bfloat16)
    [of] = opened(tensor)
    wide = numbers(of, 2, 9)
    assert np.array_equal(wide, tensor.float().flatten().numpy()[2:9])
    assert np.array_equal(encoded(wide, of.dtype), of.codes(2, 9))


def test_filled():
    assert values(Filled(BY_NAME["float32"], (2, 3), 0x3F800000)).tolist() == [[1.0] * 3] * 2


def test_what_cannot_be():
    [a, b, c] = opened(counted((2, 3)), counted((3, 2)), torch.zeros(2, 2, dtype=torch.cfloat))
    with pytest.raises(BadArgument, match="a join along dimension 1"):
        Joined((a, b), 1)
    with pytest.raises(BadArgument, match="a slice"):
        sliced(a, 0, 1, 3)
    with pytest.raises(BadArgument, match="a dimension"):
        sliced(a, 2, 0, 1)
    with pytest.raises(BadArgument, match="a reshape"):
        Reshaped(a, (7,))
    with pytest.raises(BadArgument, match="a permutation"):
        permuted(a, (0, 0))
    with pytest.raises(Unwritable, match="a cast"):
        Cast(c, BY_NAME["float32"])
