"""What the official library writes: python tests/corpus/safetensors/make.py"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save, save_model

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402

NAME = "model.safetensors"
CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = (  # noqa: SIM905
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz "
    "float8_e8m0fnu complex64 uint8 int8 int16 int32 int64 uint16 uint32 uint64 bool"
).split()


def bits(tensor):
    """The contiguous little-endian bytes, by torch alone."""
    tensor = tensor.detach().view(CARRIERS[tensor.dtype.itemsize]).contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def pattern(dtype, *shape, step=37):
    """Every kind of bit pattern: NaN, subnormals, both signs."""
    count = torch.Size(shape).numel() * dtype.itemsize
    data = (torch.arange(count, dtype=torch.int64) * step % 251).to(torch.uint8)
    if dtype is torch.bool:
        data &= 1
    return data.view(CARRIERS[dtype.itemsize]).reshape(shape).view(dtype)


def official(expected):
    """The official library finds the same bytes."""

    def check(path):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                assert bits(file.get_tensor(name)) == expected[name], name

    return check


def case(name, tensors, metadata=None):
    expected = {key: bits(tensor) for key, tensor in tensors.items()}

    def write(folder):
        (folder / NAME).write_bytes(save(tensors, metadata))

    keep(HERE / name, write, expected, NAME, official(expected))


def by_hand(name, header, data, expected):
    """A header as other writers lay it out: spaces, another order, null metadata."""

    def write(folder):
        text = header.encode()
        (folder / NAME).write_bytes(struct.pack("<Q", len(text)) + text + data)

    keep(HERE / name, write, expected, NAME, official(expected))


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embedding = torch.nn.Embedding(5, 4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


def aliases():
    model = Tied()

    def write(folder):
        save_model(model, str(folder / NAME), {"made_for": "a test"})

    expected = {name: bits(tensor) for name, tensor in model.state_dict().items()}
    keep(HERE / "metadata_and_aliases", write, expected, NAME, official(expected))


def odd_names():
    names = [
        "größe",
        "層.0",
        "",
        "with space",
        'a"b\\c',
        "\x1b[31m",
        "__metadata",
        "\U0001f525",
        "a/b",
    ]
    case("odd_names", {name: torch.full((2,), float(i)) for i, name in enumerate(names)})


def loose():
    data = struct.pack("<4f2h", 1, 2, 3, 4, 5, 6)
    header = json.dumps(
        {
            "shorts": {"shape": [2, 1], "dtype": "I16", "data_offsets": [16, 20]},
            "__metadata__": None,
            "floats": {"data_offsets": [0, 16], "dtype": "F32", "shape": [4]},
        },
        indent=2,
    )
    by_hand("loose_header", header, data, {"shorts": data[16:], "floats": data[:16]})


if __name__ == "__main__":
    case("all_dtypes", {name: pattern(getattr(torch, name), 2, 4) for name in DTYPES})
    aliases()
    odd_names()
    case(
        "empty_tensors",
        {
            "none": torch.zeros(0),
            "no_rows": torch.zeros(0, 7, dtype=torch.int64),
            "no_columns": torch.zeros(3, 0, dtype=torch.bool),
            "scalar": torch.tensor(1.5),
            "after": torch.ones(2),
        },
    )
    case("float4", {"packed": pattern(torch.float4_e2m1fn_x2, 3, 4), "scale": torch.ones(3)})
    case("nothing", {})
    loose()
