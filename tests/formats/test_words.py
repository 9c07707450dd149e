"""Values of the standard library and numpy are shown as people write them."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import uuid
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest
import torch

import tensorkeep as tk


@dataclass
class Config:
    lr: float = 0.1
    name: str = "x"


class Colour(Enum):
    RED = "red"


NOON = datetime.datetime(2024, 2, 29, 12, 30, 5)
ZONE = datetime.timezone(datetime.timedelta(hours=-5, minutes=-30))
VALUES = [
    (NOON, "2024-02-29 12:30:05"),
    (NOON.replace(microsecond=25), "2024-02-29 12:30:05.000025"),
    (NOON.replace(tzinfo=datetime.UTC), "2024-02-29 12:30:05+00:00"),
    (NOON.replace(tzinfo=ZONE), "2024-02-29 12:30:05-05:30"),
    (NOON.date(), "2024-02-29"),
    (NOON.time(), "12:30:05"),
    (datetime.timedelta(days=2, seconds=3661), "2 days, 1:01:01"),
    (decimal.Decimal("1.50"), "1.50"),
    (fractions.Fraction(1, 3), "1/3"),
    (uuid.UUID(int=0x1234), "00000000-0000-0000-0000-000000001234"),
    (slice(1, None, 2), "slice(1, None, 2)"),
    (range(3), "range(0, 3, 1)"),
    (1 - 2j, "(1-2j)"),
    (pathlib.PurePosixPath("/data/x.txt"), "/data/x.txt"),
    (pathlib.PurePosixPath("a/b"), "a/b"),
    (pathlib.PureWindowsPath("c:/x/y"), "c:\\x\\y"),
    (np.arange(6.0).reshape(2, 3), "<array float64 [2, 3]>"),
    (np.arange(3, dtype=">i4"), "<array int32 (big-endian) [3]>"),
    (np.array(["ab"]), "<array text of 2 [1]>"),
    (np.dtype("float32"), "numpy float32"),
    (np.dtype(">f8").type(2.5), 2.5),
    (np.complex64(1 + 2j), "(1+2j)"),
    (np.float16(0.5), 0.5),
    (Config(), f"{__name__}.Config(lr=0.1, name='x')"),
    (Colour.RED, f"{__name__}.Colour('red')"),
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("value", "words"), VALUES, ids=[repr(words) for _, words in VALUES])
def test_in_words(save, value, words, protocol):
    shown = tk.inspect(save({"v": value}, pickle_protocol=protocol)).to_dict()["values"]["v"]
    assert shown == words


def test_a_big_endian_scalar_is_turned_round(save):
    value = np.array([1.5], dtype=">f8")[0]
    assert tk.inspect(save({"v": value})).to_dict()["values"]["v"] == 1.5


def test_files_beside_a_checkpoint(save, tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    generators = {
        "python": (3, (1, 2, 3), None),
        "numpy": np.random.RandomState(0).get_state(),
        "cpu": torch.get_rng_state(),
    }
    for value, kind in (
        (optimizer.state_dict(), "optimizer"),
        (scheduler.state_dict(), "scheduler"),
        (generators, "rng_state"),
        (torch.amp.GradScaler("cpu").state_dict(), "grad_scaler"),
    ):
        assert tk.inspect(save(value)).kind == kind
    shown = tk.inspect(save(generators)).to_dict()["values"]["numpy"]
    assert shown[:3] == ["MT19937", "<array uint32 [624]>", 624]
    report = tk.convert(save(optimizer.state_dict()), tmp_path / "o.safetensors", section="all")
    names = [tensor["name"] for tensor in report.outputs]
    assert names == [f"state.{n}.{k}" for n in (0, 1) for k in ("step", "exp_avg", "exp_avg_sq")]
