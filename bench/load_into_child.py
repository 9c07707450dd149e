"""One model, in a fresh process: `load_into_child.py WAY FILE LAYERS [use]`; see `load_into.py`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from loading_child import condition
from torch import nn

Clock = Callable[[], None]


class Block(nn.Module):
    """As Llama's: attention and a gated MLP."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.attention = nn.ModuleDict(
            {name: nn.Linear(width, width, bias=False) for name in ("q", "k", "v", "o")}
        )
        self.gate, self.up = (nn.Linear(width, wide, bias=False) for _ in range(2))
        self.down = nn.Linear(wide, width, bias=False)


class Model(nn.Module):
    """1.06 billion parameters in 18 layers of width 2048."""

    def __init__(self, layers: int, width: int = 2048) -> None:
        super().__init__()
        self.embed = nn.Embedding(32000, width)
        self.layers = nn.ModuleList(Block(width, width * 11 // 4) for _ in range(layers))
        self.head = nn.Linear(width, 32000, bias=False)


def ours_mapped(build: Callable[[], nn.Module], path: Path, built: Clock) -> nn.Module:
    return _ours(build, path, built, mmap=True)


def ours(build: Callable[[], nn.Module], path: Path, built: Clock) -> nn.Module:
    return _ours(build, path, built, mmap=False)


def _ours(build: Callable[[], nn.Module], path: Path, built: Clock, *, mmap: bool) -> nn.Module:
    import tensorkeep as tk

    with tk.empty_weights():
        model = build()
    built()
    tk.load_into(model, path, mmap=mmap)
    return model


def ours_copied(build: Callable[[], nn.Module], path: Path, built: Clock) -> nn.Module:
    import tensorkeep as tk

    model = build()
    built()
    tk.load_into(model, path)
    return model


def torch_default(build: Callable[[], nn.Module], path: Path, built: Clock) -> nn.Module:
    model = build()
    built()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def torch_mapped(build: Callable[[], nn.Module], path: Path, built: Clock) -> nn.Module:
    model = build()
    built()
    model.load_state_dict(torch.load(path, weights_only=True, mmap=True))
    return model


def torch_assigned(build: Callable[[], nn.Module], path: Path, built: Clock) -> nn.Module:
    with torch.device("meta"):
        model = build()
    built()
    model.load_state_dict(torch.load(path, weights_only=True, mmap=True), assign=True)
    return model


WAYS = {
    each.__name__: each
    for each in (ours_mapped, ours, ours_copied, torch_default, torch_mapped, torch_assigned)
}


def main() -> None:
    way, path, layers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_default_dtype(torch.bfloat16)
    if way == "make":
        torch.save(Model(layers).state_dict(), path)
        return
    load = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.pth"
        torch.save(nn.Linear(2, 2).state_dict(), small)
        load(lambda: nn.Linear(2, 2), small, lambda: None)
    condition(path.stat().st_size * 5 // 4)
    path.open("rb").close()
    began = time.perf_counter()
    marks: list[float] = []
    model = load(lambda: Model(layers), path, lambda: marks.append(time.perf_counter()))
    if "use" in sys.argv:
        sum(float(parameter.sum()) for parameter in model.parameters())
    ended = time.perf_counter()
    assert not any(parameter.is_meta for parameter in model.parameters())
    took = {"inside_ms": 1e3 * (ended - began), "load_ms": 1e3 * (ended - marks[0])}
    print(json.dumps(took))


if __name__ == "__main__":
    main()
