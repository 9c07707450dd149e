"""What torch.save writes in its old serialization: python tests/corpus/torch_legacy/make.py"""

from __future__ import annotations

import io
import sys
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402

NAME = "model.pth"


def bits(tensor):
    tensor = tensor.detach().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def case(name, value, tensors, protocol=2):
    def write(folder):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
        (folder / NAME).write_bytes(file.getvalue())

    def check(path):
        torch.load(path, weights_only=False)

    expected = {key: bits(tensor) for key, tensor in tensors.items()}
    keep(HERE / name, write, expected, NAME, check)


def main():
    base = torch.arange(24, dtype=torch.float32)
    plain = {"weight": base.view(4, 6), "bias": torch.ones(6, dtype=torch.float64)}
    for protocol in range(2, 6):
        case(f"protocol_{protocol}", OrderedDict(plain), plain, protocol)
    views = {"a": base[2:8], "b": base.view(4, 6).t()[1:], "tied": base[2:8], "none": base[:0]}
    case("views", views, views)
    dtypes = [torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64]
    typed = {str(dtype)[6:]: torch.arange(5).to(dtype) for dtype in dtypes}
    case("dtypes", typed, typed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    training = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    inside = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    case("training", training, inside)
    case("parameter", {"p": torch.nn.Parameter(base.view(2, 12))}, {"p": base})


if __name__ == "__main__":
    main()
