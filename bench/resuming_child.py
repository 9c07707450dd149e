"""One way to resume in a fresh process, `resuming_child.py WAY FOLDER TENSORS`: `resuming.py`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from loading_child import condition
from saving_child import Model


def parts(count: int) -> tuple[Model, torch.optim.Optimizer]:
    """A model and an optimizer with its first moment: half of the bytes each."""
    model = Model(count // 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer


def make(folder: Path, count: int) -> None:
    """The same state for all ways."""
    import tensorkeep as tk

    model, optimizer = parts(count)
    for part in model.parts:
        part.grad = torch.rand_like(part)
    optimizer.step()
    with tk.Run(folder / "run") as run:
        run.track(model=model, optimizer=optimizer)
        run.save(1)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, folder / "run.pth")


def ours(folder: Path, model: Model, optimizer: torch.optim.Optimizer) -> None:
    import tensorkeep as tk

    with tk.Run(folder / "run") as run:
        run.track(model=model, optimizer=optimizer)
        assert run.resume() == 1


def torch_load(folder: Path, model: Model, optimizer: torch.optim.Optimizer) -> None:
    state = torch.load(folder / "run.pth", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def torch_mapped(folder: Path, model: Model, optimizer: torch.optim.Optimizer) -> None:
    state = torch.load(folder / "run.pth", weights_only=True, mmap=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


WAYS: dict[str, Callable[[Path, Model, torch.optim.Optimizer], None]] = {
    each.__name__: each for each in (ours, torch_load, torch_mapped)
}


def main() -> None:
    way, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if way == "make":
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, count)
        return
    model, optimizer = parts(count)
    for part in model.parts:
        part.grad = torch.zeros_like(part)
    import tensorkeep.training.run  # noqa: F401 - imports are not what is compared

    condition(count * (64 << 20))
    began = time.perf_counter()
    WAYS[way](folder, model, optimizer)
    optimizer.step()
    print(json.dumps({"inside_ms": (time.perf_counter() - began) * 1e3}), flush=True)


if __name__ == "__main__":
    main()
