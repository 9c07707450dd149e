"""Casts against torch's own, bit for bit, for every ordered pair of dtypes."""

from __future__ import annotations

import functools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.values import cast, castable
from tensorkeep.errors import BadArgument

FLOAT8 = [name for name in BY_NAME if name.startswith("float8")]
WIDTHS = (8, 16, 32, 64)
INTEGERS = [f"{sign}int{width}" for sign in ("", "u") for width in WIDTHS]
REAL = ["bool", *INTEGERS, "float16", "bfloat16", "float32", "float64", *FLOAT8]
COMPLEX = ["complex32", "complex64", "complex128"]
PAIRS = [(a, b) for a in REAL + COMPLEX for b in REAL + COMPLEX if a in REAL or b in COMPLEX]
COUNT = 1 << 18

# Where torch has no vector instructions for float16, and where the processor does not convert as
# x86-64 does, NaN payloads and integers out of range are torch's own affair.
VECTORS = torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


@pytest.fixture(autouse=True)
def one_thread():
    """Torch cuts a tensor between its threads, and each cut leaves a tail of odd elements."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def boundaries_32() -> np.ndarray:
    """Float32 patterns at and next to every place where a narrower float rounds or overflows."""
    wide = np.arange(1 << 16, dtype="<u4") << 16
    middles = [wide, wide + 1, wide + 0x7FFF, wide + 0x8000, wide + 0x8001, wide + 0xFFFF]
    halves = torch.arange(1 << 16).to(torch.uint16).view(torch.float16).float().numpy().view("<u4")
    halves = [halves, halves + 0xFFF, halves + 0x1000, halves + 0x1001, halves + 0x1FFF, halves - 1]
    return np.concatenate([*middles, *halves])


def specials_64(rng: np.random.Generator) -> np.ndarray:
    """Float64 patterns: float32 values, what lies just beside them, integers and their limits."""
    with np.errstate(invalid="ignore"):
        singles = rng.choice(boundaries_32(), 60_000).view("<f4").astype("<f8").view("<u8")
    powers = np.ldexp(1.0, np.arange(-1074, 1024))
    edges = np.ldexp(1.0, np.repeat(np.arange(7, 66), 3)) + np.tile([-1.0, 0.0, 1.0], 59)
    spread = rng.standard_normal(40_000) * 10.0 ** rng.integers(-50, 25, 40_000)
    values = np.concatenate([powers, edges, edges - 0.5, edges + 0.5, spread, [0.0, np.inf]])
    values = np.concatenate([values, -values]).view("<u8")
    nans = rng.integers(1, 1 << 52, 2000, dtype="<u8") | np.uint64(0x7FF0000000000000)
    return np.concatenate([singles, singles + 1, singles - 1, values, nans])


def pad(patterns: np.ndarray) -> np.ndarray:
    """To a multiple of 256 elements: no tail for torch's vector loops to leave over."""
    return np.resize(patterns, -(-len(patterns) // 256) * 256)


@functools.cache
def patterns(name: str) -> torch.Tensor:
    """Element bytes: all codes of 8 and 16 bits, else random patterns and the special ones."""
    itemsize = BY_NAME[name].itemsize
    rng = np.random.default_rng(7)
    if name == "bool":
        codes = np.tile(np.array([0, 1, 1, 0], np.uint8), 64)
    elif itemsize <= 2:
        codes = np.arange(1 << 8 * itemsize).astype(f"<u{itemsize}")
    elif name in COMPLEX:
        part = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}[name]
        parts = patterns(part).numpy()
        parts = parts.view(f"<u{BY_NAME[part].itemsize}")[: 2 * COUNT]
        codes = np.stack([parts, rng.permutation(parts)], 1)
    else:
        codes = rng.integers(0, 1 << 8 * itemsize, COUNT, dtype=f"<u{itemsize}")
        if name == "float32":
            codes = np.concatenate([codes, boundaries_32()])
        if name == "float64":
            codes = np.concatenate([codes, specials_64(rng)])
        if name.startswith(("int", "uint")):
            codes = np.concatenate([codes, codes >> 12, codes >> (4 * itemsize), codes[:9] * 0])
        codes = pad(codes)
    return torch.from_numpy(np.frombuffer(codes.tobytes(), np.uint8).copy())


def theirs(data: torch.Tensor, source: str, target: str) -> torch.Tensor:
    result = data.view(getattr(torch, source)).to(getattr(torch, target))
    return result.view(torch.uint8).view(-1, BY_NAME[target].itemsize)


def ours(data: torch.Tensor, source: str, target: str) -> torch.Tensor:
    result = cast(memoryview(data.numpy()), BY_NAME[source], BY_NAME[target])
    return torch.from_numpy(np.asarray(result)).view(-1, BY_NAME[target].itemsize)


def promised(data: torch.Tensor, source: str, target: str) -> torch.Tensor:
    """Which elements torch itself gives one answer for, on this processor."""
    everything = torch.ones(len(data) // BY_NAME[source].itemsize, dtype=torch.bool)
    if source in COMPLEX:
        parts = data.view(getattr(torch, source)).to(torch.complex128).isnan()
        return everything if VECTORS else ~parts
    values = data.view(getattr(torch, source)).to(torch.float64)
    if "float" not in source or target == "bool":
        return everything
    if target.startswith(("int", "uint")) and (target == "uint32" or not VECTORS):
        limits = torch.iinfo(getattr(torch, target))
        return (values > max(limits.min, -(2.0**31)) - 1) & (values < limits.max + 1.0)
    return everything if VECTORS else ~values.isnan()


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_pair_equals_torch(source, target):
    data = patterns(source)
    keep = promised(data, source, target)
    assert castable(BY_NAME[source], BY_NAME[target])
    expected, got = theirs(data, source, target), ours(data, source, target)
    assert keep.any()
    wrong = (expected != got).any(1) & keep
    codes = data.view(-1, BY_NAME[source].itemsize)
    assert not wrong.any(), [
        (codes[i].tolist(), expected[i].tolist(), got[i].tolist())
        for i in wrong.nonzero()[:4].flatten()
    ]


@pytest.mark.parametrize("source", ["float16", "float32", "float64", "int64", "float8_e5m2"])
@pytest.mark.parametrize("target", ["float32", "float16", "bfloat16", "float8_e4m3fn", "int32"])
def test_every_length_and_alignment(source, target):
    itemsize = BY_NAME[source].itemsize
    values = torch.linspace(-40, 40, 41).to(getattr(torch, source)).view(torch.uint8)
    for length in range(41):
        data = values[: length * itemsize].clone()
        expected = bytes(theirs(data, source, target).flatten().tolist())
        odd = memoryview(b"?" + bytes(data.tolist()))[1:]
        assert cast(odd, BY_NAME[source], BY_NAME[target]) == expected


def test_only_complex_to_real_and_packed_dtypes_are_refused():
    pairs = {(a.name, b.name) for a in BY_NAME.values() for b in BY_NAME.values() if castable(a, b)}
    assert pairs == {*PAIRS, *((name, name) for name in BY_NAME)}


@pytest.mark.parametrize(
    ("source", "target"), [("complex64", "float32"), ("complex64", "bool"), ("int4", "int8")]
)
def test_a_refused_pair_says_which(source, target):
    with pytest.raises(BadArgument, match=f"a cast from {source} to {target}"):
        cast(b"", BY_NAME[source], BY_NAME[target])


@pytest.mark.parametrize("target", ["float32", "float64"])
def test_a_last_element_cut_short_is_refused(target):
    with pytest.raises(BadArgument, match="a multiple of 4 bytes, got 7 bytes"):
        cast(bytes(7), BY_NAME["float32"], BY_NAME[target])


def test_the_same_dtype_is_no_copy():
    data = bytearray(b"abcdefgh")
    view = cast(data, BY_NAME["float4_e2m1fn_x2"], BY_NAME["float4_e2m1fn_x2"])
    data[0] = 0
    assert view[0] == 0


def test_any_bool_byte_but_zero_is_true():
    data = torch.tensor([0, 1, 2, 128, 255], dtype=torch.uint8)
    for target in ("uint8", "float32", "bfloat16", "complex64"):
        expected = theirs(data, "bool", target)
        assert torch.equal(ours(data, "bool", target), expected)


def test_what_torch_leaves_open_has_one_answer():
    def codes(values, source, target):
        data = np.array(values, f"<u{BY_NAME[source].itemsize}").tobytes()
        result = cast(data, BY_NAME[source], BY_NAME[target])
        return np.frombuffer(result, f"<u{BY_NAME[target].itemsize}").tolist()

    assert codes([0x7C01, 0xFE05], "float16", "float32") == [0x7FC02000, 0xFFC0A000]
    assert codes([0x7FF8000000000000], "float64", "bfloat16") == [0xFFFF]
    assert codes([0x7F800001, 0xFFC00000], "float32", "bfloat16") == [0xFFFF, 0xFFFF]
    assert codes([0x7E00], "float16", "bfloat16") == [0x7FC0]
    nan, five_billion = 0x7FC00000, 0x4F9502F9
    assert codes([five_billion, nan, 0xBF800000], "float32", "uint32") == [
        5_000_000_000 - 2**32,
        0,
        2**32 - 1,
    ]
    assert codes([five_billion, nan], "float32", "int32") == [2**31, 2**31]
    assert codes([five_billion, nan], "float32", "int64") == [5_000_000_000, 2**63]


def test_the_temporaries_stay_small():
    block = 1 << 20
    for source, target in [("float32", "int8"), ("float64", "float8_e5m2"), ("bool", "uint64")]:
        cast(bytes(16), BY_NAME[source], BY_NAME[target])
        data = bytes(block)
        tracemalloc.start()
        result = cast(data, BY_NAME[source], BY_NAME[target])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - len(result) < 2 << 20


def test_importing_it_needs_no_numpy():
    code = "import sys, tensorkeep.edits.values; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
