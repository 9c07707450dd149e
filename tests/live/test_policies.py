"""Casts on the way into a module: torch's numbers, and what they lost counted."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.live.policies import cast

EIGHTS = [
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    torch.float8_e8m0fnu,
]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, *EIGHTS]
INTEGERS = [
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]
VALUES = (0, 1e-300, -1e-40, 1e-8, 1, 447, 448, 465, 65504, 65520, 1e6, 3.5e38, -1e300)
ODD = (float("inf"), float("-inf"), float("nan"))


@pytest.mark.parametrize(("file", "model"), [*product(FLOATS, FLOATS)])
def test_what_floats_lose(file: torch.dtype, model: torch.dtype) -> None:
    before = torch.tensor([*VALUES, *ODD], dtype=torch.float64).to(file)
    after, told = cast("x", before, model)
    one, two = before.double(), after.double()
    assert torch.equal(two.nan_to_num(9), before.to(model).double().nan_to_num(9))
    finite, top = one.isfinite(), torch.finfo(model).max
    over = ~two.isfinite() | ((one.abs() > top) if model.itemsize == 1 else torch.tensor(False))
    assert told.overflowed == int((finite & over).sum())
    assert told.underflowed == int(((one != 0) & (two == 0)).sum())


@pytest.mark.parametrize(("file", "model"), [*product(INTEGERS, INTEGERS)])
def test_what_integers_lose(file: torch.dtype, model: torch.dtype) -> None:
    limits, room = torch.iinfo(file), torch.iinfo(model)
    values = [v for v in (-1, 0, 5, limits.min, limits.max) if limits.min <= v <= limits.max]
    told = cast("x", torch.tensor(values, dtype=file), model)[1]
    assert told.overflowed == sum(not room.min <= v <= room.max for v in values)


@pytest.mark.skipif(not hasattr(torch, "float4_e2m1fn_x2"), reason="torch has no 4-bit floats yet")
def test_packed_floats_are_never_cast(tmp_path: Path) -> None:
    packed = torch.arange(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    torch.save({"w": packed, "b": torch.ones(2)}, tmp_path / "x.pth")
    for nested in (False, True):
        found = tk.load(tmp_path / "x.pth", dtype="float16", nested=nested)
        assert found["b"].dtype == torch.float16
        assert torch.equal(found["w"].view(torch.uint8), packed.view(torch.uint8))
    model = nn.Module()
    model.register_buffer("w", torch.zeros(4))
    model.register_buffer("b", torch.zeros(2))
    with pytest.raises(errors.DoesNotFit, match="MISMATCH in dtype: float4_e2m1fn_x2"):
        tk.load_into(model, tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_device_that_cannot_hold_it(tmp_path: Path) -> None:
    packed = torch.quantize_per_tensor(torch.ones(4), 0.1, 1, torch.quint8)
    torch.save({"w": packed, "b": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(errors.Unsupported, match="a tensor of quint8: .* bring to meta"):
        tk.load(tmp_path / "x.pth", device="meta")
