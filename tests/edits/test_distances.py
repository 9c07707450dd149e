"""Distances against torch's own arithmetic in float64, over all dtypes and odd values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.distances import STEP, Distance, Meter, measurable

FLOATS = ["float64", "float32", "float16", "bfloat16"]
FLOAT8 = [name for name in BY_NAME if name.startswith("float8")]
WIDTHS = (8, 16, 32, 64)
INTEGERS = [f"{sign}int{width}" for sign in ("", "u") for width in WIDTHS]
COMPLEX = ["complex32", "complex64", "complex128"]
ALL = [*FLOATS, *FLOAT8, *INTEGERS, "bool", *COMPLEX]

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def raw(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().copy()


def measure(a, b, atol=0.0, rtol=0.0):
    """The distance of two tensors, in the pieces that a caller would hand in."""
    meter, to = Meter(atol, rtol), Distance()
    first, second = (BY_NAME[str(t.dtype).removeprefix("torch.")] for t in (a, b))
    for at in range(0, a.numel(), STEP):
        left, right = raw(a[at : at + STEP]), raw(b[at : at + STEP])
        meter.add(to, left, first, right, second)
    return to


def wide(tensor):
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.to(torch.float64)


def some(name, count, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, name)
    if name == "bool":
        return torch.randint(0, 2, (count,), generator=generator).bool()
    if name in INTEGERS:
        info = torch.iinfo(dtype)
        low, high = max(info.min, -(2**31)), min(info.max, 2**31)
        return torch.randint(low, high, (count,), generator=generator).to(dtype)
    if name in COMPLEX:
        return torch.randn(count, dtype=torch.complex64, generator=generator).to(dtype)
    return (spread * torch.randn(count, generator=generator)).to(dtype)


def near(got, wanted, digits=1e-6):
    assert got == pytest.approx(wanted, rel=digits, abs=1e-12)


@pytest.mark.parametrize("name", ALL)
@given(st.integers(0, 9000), st.integers(0, 2**16))
def test_one_dtype_against_torch(name, count, seed):
    a, b = some(name, count, seed), some(name, count, seed + 1)
    found, x, y = measure(a, b), wide(a), wide(b)
    gap = x - y
    near(found.max_abs, gap.abs().max().item() if count else 0)
    norms = x.norm().item(), y.norm().item()
    near(found.rel_l2 or 0, gap.norm().item() / norms[0] if norms[0] else 0)
    if all(norms):
        dot = (x.conj() * y).sum().real.item()
        assert found.cosine == pytest.approx(dot / (norms[0] * norms[1]), abs=1e-6)
    assert found.apart == (not torch.equal(x, y))


@pytest.mark.parametrize("first", ALL)
@pytest.mark.parametrize("second", ["float32", "bfloat16", "int32", "uint8", "float8_e5m2"])
def test_two_dtypes_against_torch(first, second):
    a, b = some(first, 3000, 1, 0.5), some(second, 3000, 2, 0.5)
    found, gap = measure(a, b), wide(a) - wide(b)
    near(found.max_abs, gap.abs().max().item())
    near(found.rel_l2, gap.norm().item() / wide(a).norm().item())


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("count", [1, STEP - 1, STEP, STEP + 1, 3 * STEP + 17])
def test_pieces_add_up(name, count):
    a = some(name, count, 3)
    b = a.clone()
    b[-1] += 2
    found = measure(a, b)
    near(found.max_abs, (wide(a) - wide(b)).abs().max().item())
    near(found.first, wide(a).square().sum().item())
    near(found.rel_l2, (wide(a) - wide(b)).norm().item() / wide(a).norm().item())


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-19, 1e19, 1e30, 1e38])
def test_squares_that_float32_cannot_hold(scale):
    a = torch.tensor([1.0, -2.0, 0.5, 0.0]) * scale
    b = torch.tensor([1.0, 2.0, 0.25, 0.0]) * scale
    found, x, y = measure(a, b), a.double(), b.double()
    near(found.rel_l2, ((x - y).norm() / x.norm()).item())
    near(found.cosine, torch.nn.functional.cosine_similarity(x, y, 0, 0).item())


def test_nearly_equal_vectors_keep_the_digits_of_their_angle():
    a = torch.randn(50_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = a + 1e-6 * torch.randn(50_000, dtype=torch.float64)
    exact = ((a / a.norm() - b / b.norm()).norm() ** 2 / 2).item()
    assert 1 - measure(a, b).cosine == pytest.approx(exact, rel=1e-3)


def test_all_halves():
    codes = torch.arange(1 << 16).to(torch.uint16).view(torch.float16)
    moved = codes.roll(1)
    finite = codes.isfinite() & moved.isfinite()
    found = measure(codes, moved)
    near(found.largest, (codes.double() - moved.double())[finite].abs().max().item())
    same = torch.equal(codes.view(torch.int16), moved.view(torch.int16))
    assert found.odd and not same
    nans = (codes.isnan() & moved.isnan()).sum().item()
    assert found.nans == nans


@pytest.mark.parametrize("name", [*FLOATS, "complex64"])
def test_nan_and_infinity(name):
    dtype = getattr(torch, name)
    nan, inf = math.nan, math.inf
    a = torch.tensor([nan, inf, -inf, 1.0, 2.0], dtype=dtype)
    found = measure(a, a.clone())
    assert not found.apart
    assert found.nans == 1
    near(found.first, 5.0)
    found = measure(a, torch.tensor([nan, inf, inf, 1.0, 3.0], dtype=dtype))
    assert (found.odd, found.max_abs, found.largest) == (1, inf, 1)
    found = measure(a, torch.tensor([0.0, inf, -inf, 1.0, 2.0], dtype=dtype))
    assert found.odd == 1
    assert math.isnan(found.max_abs)
    assert found.rel_l2 == 0


def test_zeros_of_two_signs_are_equal():
    assert not measure(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])).apart


@pytest.mark.parametrize("name", ["int64", "uint64"])
def test_long_integers_are_exact(name):
    info = torch.iinfo(getattr(torch, name))
    a = torch.tensor([info.min, info.max - 1, 5], dtype=getattr(torch, name))
    b = torch.tensor([info.max, info.max, 5], dtype=getattr(torch, name))
    assert measure(a, b).max_abs == info.max - info.min
    assert measure(a[1:], b[1:]).max_abs == 1
    assert isinstance(measure(a, b).max_abs, int)


def test_long_integers_of_two_widths_are_exact():
    a = torch.tensor([2**60 + 1, 7], dtype=torch.int64)
    assert measure(a, torch.tensor([-5, 7], dtype=torch.int32)).max_abs == 2**60 + 6


@pytest.mark.parametrize("value", [60000.0, math.inf, math.nan])
def test_large_halves_are_no_infinities(value):
    a = torch.tensor([value, 1.0], dtype=torch.float16)
    b = torch.tensor([value, 2.0], dtype=torch.float16)
    found = measure(a, b)
    assert (found.largest, found.odd) == (1, 0)
    near(found.first, (a[a.isfinite()].double() ** 2).sum().item())
    same, meter = Distance(), Meter()
    meter.add_same(same, raw(a), BY_NAME["float16"])
    near(same.first, found.first)


def test_any_byte_but_zero_is_true():
    meter, to, kind = Meter(), Distance(), BY_NAME["bool"]
    a, b = np.array([1, 0, 2], np.uint8), np.array([7, 0, 1], np.uint8)
    assert not meter.add(to, a, kind, b, kind)


@given(st.integers(0, 2**16), st.floats(0, 0.1), st.floats(0, 0.1))
def test_tolerance_is_that_of_allclose(seed, atol, rtol):
    a = some("float64", 100, seed)
    b = a + 0.05 * some("float64", 100, seed + 1)
    assert measure(a, b, atol, rtol).beyond == (not torch.allclose(a, b, rtol, atol))


def test_tolerance_of_integers():
    a, b = torch.tensor([10, 20]), torch.tensor([11, 20])
    assert not measure(a, b, atol=1).beyond
    assert measure(a, b, atol=0.5).beyond
    assert not measure(a, b, rtol=0.1).beyond


def test_zeros_have_no_direction():
    zeros, ones = torch.zeros(3), torch.ones(3)
    assert measure(zeros, ones).rel_l2 is None
    assert measure(zeros, ones).cosine is None
    assert measure(zeros, zeros).rel_l2 == 0
    assert measure(ones, zeros).rel_l2 == 1


@given(st.binary(max_size=300), st.integers(0, 299))
def test_equal_is_equal(data, at):
    a, b = np.frombuffer(data, np.uint8), np.frombuffer(bytearray(data), np.uint8)
    assert Meter().equal(a, b)
    if at < len(data):
        b[at] ^= 1
        assert not Meter().equal(a, b)


def test_what_has_numbers():
    assert {name for name, dtype in BY_NAME.items() if measurable(dtype)} == set(ALL)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-7, 1e-16, 1e-30])
def test_the_cosine_of_lengths_that_lie_far_apart(name, scale):
    a, b = some(name, 9000, 1, spread=scale), some(name, 9000, 2) + some(name, 9000, 1)
    x, y = wide(a), wide(b)
    if not x.any():  # below the smallest half
        assert measure(a, b).cosine is None
        return
    wanted = (x @ y / (x.norm() * y.norm())).item()
    assert measure(a, b).cosine == pytest.approx(wanted, abs=1e-6)
    assert measure(b, a).cosine == pytest.approx(wanted, abs=1e-6)


def test_integers_of_lengths_that_lie_far_apart():
    a, b = torch.tensor([1, 0, 2]), torch.tensor([2**60, 2**61, 0])
    wanted = (wide(a) @ wide(b) / (wide(a).norm() * wide(b).norm())).item()
    assert measure(a, b).cosine == pytest.approx(wanted)


@pytest.mark.parametrize("value", [5e-324, 1e-200])
def test_differences_whose_squares_are_zero_are_differences(value):
    a = torch.tensor([0.0, 0.0], dtype=torch.float64)
    b = torch.tensor([0.0, value], dtype=torch.float64)
    found = measure(a, b)
    assert found.apart and found.max_abs == value and found.rel_l2 is None
    assert measure(torch.ones_like(a), torch.ones_like(a) + b).rel_l2 == 0.0
