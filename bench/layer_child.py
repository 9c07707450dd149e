"""One layer of a 40 GB model that was never read: `layer_child.py FILE WIDTH`.

The file is sparse (see `files.py`). A model on the meta device gets its tensors mapped, one linear
layer is used once, and the pages of the file that are in this process's memory are counted before
and after, as the kernel counts them (Rss of the mapping in /proc/self/smaps).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

LAYERS = 32


class Block(nn.Module):
    """The parts of a layer as the file names them."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict(
            {f"{name}_proj": nn.Linear(width, width, bias=False) for name in "qkvo"}
        )
        shapes = {"gate_proj": (width, wide), "up_proj": (width, wide), "down_proj": (wide, width)}
        self.mlp = nn.ModuleDict(
            {name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()}
        )
        self.input_layernorm = nn.LayerNorm(width, bias=False)
        self.post_attention_layernorm = nn.LayerNorm(width, bias=False)


class Model(nn.Module):
    """The names and shapes of `files.LARGE`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(32000, width),
                "layers": nn.ModuleList(Block(width, width * 8 // 3) for _ in range(LAYERS)),
            }
        )
        self.lm_head = nn.Linear(width, 32000, bias=False)


def resident(path: Path) -> int:
    """Bytes of the file that are mapped and present."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def main() -> None:
    import tensorkeep as tk

    path, width = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    torch.set_default_dtype(torch.float16)
    with tk.empty_weights():
        model = Model(width)
    began = time.perf_counter()
    tk.load_into(model, path, mmap=True)
    took = time.perf_counter() - began
    before = resident(path)
    layer = model.model["layers"][LAYERS // 2].mlp["gate_proj"]
    with torch.no_grad():
        layer(torch.ones(1, width))
    found = {
        "inside_ms": 1e3 * took,
        "layer_mb": layer.weight.nbytes / 1e6,
        "touched_mb": (resident(path) - before) / 1e6,
        "resident_before_mb": before / 1e6,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
