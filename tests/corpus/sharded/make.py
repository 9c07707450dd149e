"""Checkpoints in several files: python tests/corpus/sharded/make.py"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402

TENSORS = {
    "embed.weight": torch.arange(12, dtype=torch.float32).reshape(4, 3),
    "layers.0.weight": torch.arange(9, dtype=torch.bfloat16).reshape(3, 3),
    "layers.1.weight": torch.arange(9, 18, dtype=torch.bfloat16).reshape(3, 3),
    "head.bias": torch.tensor([1, -2, 3], dtype=torch.int16),
}
NAMES = list(TENSORS)
GROUPS = (NAMES[:2], NAMES[2:3], NAMES[3:])


def case(name, stem, suffix, save, index):
    expected = {
        key: tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        for key, tensor in TENSORS.items()
    }

    def write(folder):
        where = {}
        for number, group in enumerate(GROUPS, 1):
            part = f"{stem}-{number:05d}-of-{len(GROUPS):05d}{suffix}"
            save({key: TENSORS[key] for key in group}, folder / part)
            where |= dict.fromkeys(group, part)
        if index:
            size = sum(len(data) for data in expected.values())
            text = {"metadata": {"total_size": size}, "weight_map": where}
            (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(text, indent=2) + "\n")

    keep(HERE / name, write, expected)


if __name__ == "__main__":

    def safetensors(tensors, path):
        save_file(tensors, path, {"format": "pt"})

    case("safetensors_index", "model", ".safetensors", safetensors, True)
    case("bin_index", "pytorch_model", ".bin", torch.save, True)
    case("numbered_safetensors", "model", ".safetensors", safetensors, False)
    case("numbered_bin", "pytorch_model", ".bin", torch.save, False)
