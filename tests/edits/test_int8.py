"""int8 codes and scales: what plain torch gives, bit for bit, and the laws that they obey."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits import _rounding
from tensorkeep.edits.arrays import Stored
from tensorkeep.edits.dequantized import Dequantize, Dequantized
from tensorkeep.edits.int8 import Pair
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import BadArgument, Unwritable

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """So that rows are longer and shorter than a piece."""
    monkeypatch.setattr(_rounding, "PIECE", 64)


def stored(**tensors):
    file = io.BytesIO()
    torch.save(tensors, file)
    return {name: Stored(ref) for name, ref in tk.open(file.getvalue()).tensors.items()}


def made(pair, size=1 << 10):
    """Codes, scales, as the writer takes them: cut by cut."""
    found = [np.full(member.nbytes, 0xEE, "u1") for member in pair.members]
    for cut in pair.cuts(size):
        for member, at, piece in pair.pieces(*cut):
            found[member][at : at + len(piece)] = piece
    shape = pair.of.shape
    codes = torch.from_numpy(found[0].view("i1").copy()).reshape(shape)
    return codes, torch.from_numpy(found[1].view("<f4").copy()).reshape(pair.scale.shape)


def plain(weight):
    """The same as one would write it in torch."""
    wide = weight if weight.dtype is torch.float64 else weight.float()
    flat = wide.flatten(1)
    scale = (flat.abs().amax(1, keepdim=True) / 127).float()
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    scale[flat.abs().amax(1) == 0] = 1
    codes = torch.round(flat / scale.to(flat.dtype)).clamp(-127, 127).to(torch.int8)
    return codes.reshape(weight.shape), scale.reshape(-1, *[1] * (weight.dim() - 1))


@st.composite
def weights(draw):
    """Weights of any size up to a few pieces; some rows zero, tiny, subnormal or huge."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    shape.append(draw(st.sampled_from([1, 3, 31, 64, 65, 200])))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    powers = draw(st.lists(st.integers(-45, 30), min_size=shape[0], max_size=shape[0]))
    factors = torch.tensor([0.0 if p == 30 else 10.0**p for p in powers], dtype=torch.float64)
    weight *= factors.reshape(-1, *[1] * (len(shape) - 1))
    weight = weight.to(dtype)
    weight = torch.where(weight.isfinite(), weight, torch.ones((), dtype=dtype))
    return weight.transpose(0, -1) if draw(st.booleans()) else weight


@given(weights(), st.integers(1, 5000))
def test_as_plain_torch(weight, size):
    pair = Pair("w", stored(w=weight)["w"])
    codes, scale = made(pair, size)
    wanted, wanted_scale = plain(weight)
    assert torch.equal(scale, wanted_scale)
    assert torch.equal(codes, wanted)
    # Asked for one by one, as a check reads them again, they are the same.
    assert b"".join(map(bytes, pair.weight.blocks())) == codes.numpy().tobytes()
    assert b"".join(map(bytes, pair.scale.blocks())) == scale.numpy().tobytes()


@given(weights())
def test_no_further_than_half_a_scale(weight):
    codes, scale = made(Pair("w", stored(w=weight)["w"]))
    error = (weight.double() - codes.double() * scale.double()).abs()
    # The quotient was rounded to float32 (of 127, a 2**-18th at most) before it was to a code.
    assert (error <= scale.double() * (0.5 + 2**-17)).all()
    zero = weight.flatten(1).abs().amax(1) == 0
    assert (codes[zero] == 0).all()
    assert scale.isfinite().all()


@given(weights())
def test_again_is_the_same(weight):
    codes, scale = made(Pair("w", stored(w=weight)["w"]))
    again, scale_again = made(Pair("w", stored(w=codes.double() * scale.double())["w"]))
    assert torch.equal(again, codes)
    used = codes.flatten(1).abs().amax(1) == 127
    torch.testing.assert_close(scale_again[used], scale[used], rtol=1e-6, atol=0)


@given(weights())
def test_noise_is_measured(weight):
    pair = Pair("w", stored(w=weight)["w"])
    codes, scale = made(pair)
    error = weight.double() - codes.double() * scale.double()
    noise, signal = (error**2).sum().item(), (weight.double() ** 2).sum().item()
    assert pair.tally.signal == pytest.approx(signal, rel=1e-4)
    # Where it is next to nothing, it is what float32 can tell from nothing.
    assert pair.tally.noise == pytest.approx(noise, rel=1e-2, abs=signal * 1e-9)


@given(weights(), st.data())
def test_any_run_of_either(weight, data):
    pair = Pair("w", stored(w=weight)["w"])
    wholes = (part.reshape(-1).numpy() for part in made(pair))
    for member, whole in zip(pair.members, wholes, strict=True):
        start = data.draw(st.integers(0, whole.size))
        stop = data.draw(st.integers(start, whole.size))
        assert member.codes(start, stop).tobytes() == whole[start:stop].tobytes()


@given(weights(), st.sampled_from(DTYPES), st.booleans(), st.data())
def test_dequantised_as_torch(weight, to, per_tensor, data):
    codes, scale = made(Pair("w", stored(w=weight)["w"]))
    scale = scale.reshape(-1)[:1] if per_tensor else scale
    pair = stored(c=codes, s=scale)
    back = Dequantized(pair["c"], pair["s"], BY_NAME[str(to)[6:]])
    wide = scale if per_tensor else scale.reshape(-1, *[1] * (weight.dim() - 1))
    wanted = (codes.float() * wide).to(to).flatten()
    start = data.draw(st.integers(0, wanted.numel()))
    stop = data.draw(st.integers(start, wanted.numel()))
    run = wanted[start:stop].view(torch.uint8) if stop > start else wanted[:0].view(torch.uint8)
    assert back.codes(start, stop).tobytes() == run.numpy().tobytes()
    assert back.shape == tuple(weight.shape)


def test_rows_too_many_for_a_call_each():
    weight = torch.randn(3000, 2)
    codes, scale = made(Pair("w", stored(w=weight)["w"]))
    pair = stored(c=codes, s=scale)
    back = np.concatenate([Dequantized(pair["c"], pair["s"]).codes(1, 6000).view("<f4")])
    assert np.array_equal(back, (codes.float() * scale).flatten()[1:].numpy())
    long = torch.randn(2, 5000)
    codes, scale = made(Pair("w", stored(w=long)["w"]))
    pair = stored(c=codes, s=scale)
    back = Dequantized(pair["c"], pair["s"]).codes(4000, 9000).view("<f4")
    assert np.array_equal(back, (codes.float() * scale).flatten()[4000:9000].numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("columns", [10, 300])
def test_not_finite(dtype, odd, columns):
    weight = torch.ones(4, columns, dtype=dtype)
    weight[2, columns // 2] = odd
    with pytest.raises(Unwritable, match=r"layer\.weight: .*row 2.*--skip"):
        made(Pair("layer.weight", stored(w=weight)["w"]))


def test_beyond_float32():
    with pytest.raises(Unwritable, match="beyond float32"):
        made(Pair("w", stored(w=torch.full((2, 3), 1e300, dtype=torch.float64))["w"]))


@pytest.mark.parametrize("tensor", [torch.ones(3, dtype=torch.int8), torch.ones(0, 3)])
def test_nothing_to_make_codes_of(tensor):
    with pytest.raises(Unwritable):
        Pair("w", stored(w=tensor)["w"])


def inventory(**tensors):
    return Inventory("file", dict(stored(**tensors)), origin={name: (name,) for name in tensors})


def test_the_edit():
    codes = torch.tensor([[1, -127], [3, 4]], dtype=torch.int8)
    scale = torch.tensor([[0.5], [2.0]])
    found = inventory(weight=codes, bias=torch.ones(2), weight_scale=scale, n=codes)
    Dequantize("float16").apply(found)
    assert list(found) == ["weight", "bias", "n"]
    assert found["weight"].dtype.name == "float16"
    got = np.frombuffer(b"".join(map(bytes, found["weight"].blocks())), "<f2")
    assert got.tolist() == [0.5, -63.5, 6.0, 8.0]
    assert found.origin["weight"] == ("weight", "weight_scale")
    assert Dequantize().inverse() is None


def test_the_edit_on_nothing_and_on_others_codes():
    found = inventory(w=torch.ones(2))
    Dequantize().apply(found)
    assert found.notes == ["no int8 tensor has a scale beside it to dequantize with"]
    codes = torch.ones(4, 6, dtype=torch.int8)
    with pytest.raises(BadArgument, match="one for each of the 4 output channels"):
        Dequantize().apply(inventory(w=codes, w_scale=torch.ones(4, 3)))
    with pytest.raises(BadArgument, match="symmetric"):
        odd = {"w_zero_point": torch.ones(4, 1), "w_scale": torch.ones(4, 1)}
        Dequantize().apply(inventory(w=codes, **odd))
    with pytest.raises(BadArgument, match="floating"):
        Dequantize("int8")
