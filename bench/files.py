"""The checkpoints that are measured. Each is made once, by a child, so that torch never enters
the process that measures (its memory would be counted as its children's)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common import Bench, environment

# Tensors of a Llama-shaped model of 32 layers: 9 each, and two embeddings: 290.
# fp16, 2.0 GB at width 1536. Bytes are random enough that nothing on the way can compress them.
LARGE = """
import sys, torch
path, width, empty = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "empty"
torch.manual_seed(0)
noise = torch.randint(-2**15, 2**15 - 1, (1 << 23,), dtype=torch.int16)
def make(*shape):
    tensor = torch.empty(shape, dtype=torch.float16)
    if not empty:
        raw = tensor.view(torch.int16).view(-1)
        for at in range(0, raw.numel(), noise.numel()):
            part = raw[at : at + noise.numel()]
            part.copy_(noise.roll(at // 4099 + len(state))[: part.numel()])
    return tensor
wide = width * 8 // 3
state = {}
state["model.embed_tokens.weight"] = make(32000, width)
for i in range(32):
    for name in ("q", "k", "v", "o"):
        state[f"model.layers.{i}.self_attn.{name}_proj.weight"] = make(width, width)
    state[f"model.layers.{i}.mlp.gate_proj.weight"] = make(wide, width)
    state[f"model.layers.{i}.mlp.up_proj.weight"] = make(wide, width)
    state[f"model.layers.{i}.mlp.down_proj.weight"] = make(width, wide)
    state[f"model.layers.{i}.input_layernorm.weight"] = make(width)
    state[f"model.layers.{i}.post_attention_layernorm.weight"] = make(width)
state["lm_head.weight"] = make(32000, width)
if empty:
    # torch's own way to write everything but the storages: they stay holes in the file.
    with torch.serialization.skip_data():
        torch.save(state, path)
else:
    torch.save(state, path)
"""

# Many small tensors: blocks of ten, as deep networks with adapters and norms have them.
MANY = """
import sys, torch
path, count = sys.argv[1], int(sys.argv[2])
parts = ("weight", "bias", "scale", "shift", "mean", "var", "alpha", "beta", "up", "down")
state = {f"blocks.{i // 10}.unit.{parts[i % 10]}": torch.full((4, 4), float(i))
         for i in range(count)}
torch.save(state, path)
"""

# 290 tensors of equal size; what a short training makes of them in "other".
PAIR = """
import sys, torch
from safetensors.torch import save_file
path, dtype, which, size = sys.argv[1], getattr(torch, sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.manual_seed(0)
noise = 0.02 * torch.randn(1 << 22)
step = 1e-4 * torch.randn(1 << 22) if which == "other" else torch.zeros(1)
count = size // (290 * 64 * dtype.itemsize) * 64
state = {}
for i in range(290):
    values = noise.roll(4099 * i).repeat(count // noise.numel() + 1)[:count]
    moved = step.roll(i).repeat(count // step.numel() + 1)[:count]
    state[f"layers.{i // 10}.part{i % 10}.weight"] = (values + moved).to(dtype).view(64, -1)
save_file(state, path) if path.endswith(".safetensors") else torch.save(state, path)
"""

CONVERTED = """
import sys, torch
from safetensors.torch import save_file
save_file(torch.load(sys.argv[1], mmap=True), sys.argv[2])
"""

# Width of the model, and gigabytes of its file, as it is called in the results.
WIDTHS = {2: 1536, 8: 3168, 20: 5088, 40: 7152, 100: 11328}


def large(bench: Bench) -> Path:
    """2 GB, all of it real."""
    return _made(bench.folder / "large.pth", LARGE, _width(bench, 2), "full")


def sparse(bench: Bench, gigabytes: int) -> Path:
    """Tensors that are holes: the file says its length and hardly takes room on the device."""
    path = bench.folder / f"sparse{gigabytes}.pth"
    return _made(path, LARGE, _width(bench, gigabytes), "empty")


def many(bench: Bench, count: int) -> Path:
    """`count` tensors of 64 bytes."""
    return _made(bench.folder / f"many{count}.pth", MANY, str(count))


def converted(bench: Bench) -> Path:
    """The 2 GB file as safetensors' own library writes it."""
    path = bench.folder / "large.safetensors"
    if not path.exists():
        _run(CONVERTED, str(large(bench)), str(path))
    return path


def pair(bench: Bench, dtype: str, which: str, ending: str) -> Path:
    """2 GB of `dtype`: "first", "other" (every tensor a little different) or "same"."""
    path = bench.folder / f"{which}-{dtype}{ending}"
    return _made(path, PAIR, dtype, which, str(int(2e9 * bench.scale)))


def pickle_of(path: Path) -> Path:
    """The data.pkl of a checkpoint, in a file of its own."""
    import zipfile

    out = path.with_suffix(".pkl")
    if not out.exists():
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            out.write_bytes(archive.read(name))
    return out


def width(bench: Bench, gigabytes: int) -> str:
    """The width of the model in the file of that size."""
    return _width(bench, gigabytes)


def _width(bench: Bench, gigabytes: int) -> str:
    # Divisible by 48, so that three eighths of the inner width are whole.
    return str(max(48, int(WIDTHS[gigabytes] * bench.scale**0.5) // 48 * 48))


def _made(path: Path, code: str, *arguments: str) -> Path:
    if not path.exists():
        print(f"making {path.name} ...", file=sys.stderr)
        _run(code, str(path), *arguments)
        with path.open("rb") as file:
            import os

            os.fsync(file.fileno())
    return path


def _run(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment())
