"""`match` of 500 and of 20,000 tensors under stacked wrappers: the search, and the whole process.

Names of repeated blocks, as models have them, and names of which each is built differently, which
no model has: the search looks at names of one build once.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from common import Bench, Contestant, figure, interleave, python, row_of, target, tensorkeep

SEARCH = """
import json, sys, time
from tensorkeep.matching.against import wanted_of
from tensorkeep.matching.finding import find
file, model = (wanted_of(path).tensors for path in sys.argv[1:])
start, busy = time.perf_counter(), time.process_time()
found = find(file, model)
took, busy = time.perf_counter() - start, time.process_time() - busy
assert found.fits, found.rules
print(json.dumps({"inside_ms": took * 1e3, "inside_cpu_ms": busy * 1e3}))
"""
PARTS = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down", "LayerNorm")
LIMIT_MS = {500: 1_000, 20_000: 20_000}


def blocks(count: int) -> list[str]:
    """Names of a model of repeated blocks."""
    names = (
        f"layers.{block}.{part}.{leaf}"
        for block in range(count)
        for part in PARTS
        for leaf in ("weight", "bias")
    )
    return [name for name, _ in zip(names, range(count), strict=False)]


def odd(count: int) -> list[str]:
    """Names of which no two are built alike."""
    chance, names = random.Random(0), {}
    while len(names) < count:
        parts = [f"{chance.choice(PARTS)}{chance.choice('abcdefgh')}" for _ in range(3)]
        names[".".join([*parts, "weight"])] = None
    return list(names)


def wrapped(name: str) -> str:
    """Compiled, in parallel, each attention sharded, and the norms named as TensorFlow does."""
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    name = name.replace("LayerNorm.bias", "LayerNorm.beta")
    return "_orig_mod.module." + name.replace("attn", "_fsdp_wrapped_module.attn")


def written(bench: Bench, label: str, names: list[str]) -> list[Path]:
    """Two files, the wrapped names and the bare ones: a byte or two for each tensor."""
    import torch

    found = []
    for side, of in (("file", wrapped), ("model", str)):
        path = bench.folder / f"{label}-{side}.pth"
        tensors = {of(name): torch.zeros(1 + (at % 7), dtype=torch.uint8)
                   for at, name in enumerate(names)}  # fmt: skip
        torch.save(tensors, path)
        found.append(path)
    return found


def measure(bench: Bench) -> dict[str, Any]:
    """Both sizes of both kinds."""
    cases: dict[str, Any] = {}
    rows = []
    for count in LIMIT_MS:
        for kind in (blocks, odd):
            label = f"{count} tensors, {kind.__name__}"
            files = written(bench, f"{count}-{kind.__name__}", kind(bench.scaled(count)))
            taken = interleave(
                [
                    Contestant("search", python(SEARCH, *files)),
                    Contestant("tensorkeep match", tensorkeep("match", *files)),
                ],
                bench.runs,
            )
            cases[label] = taken
            inside = row_of(taken, "search")["inside_ms"]
            rows.append(target(f"ms to match {label}", LIMIT_MS[count], inside))
    return {"cases": cases, "targets": rows}


if __name__ == "__main__":
    figure("matching", measure)
