"""One way to save, in a fresh process, `saving_child.py WAY FOLDER TENSORS`: see `saving.py`.

The model is of 64 MiB tensors, float32. Each way saves three times before the clock starts: buffers
are there then, and tensorkeep has measured both of its ways to the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

ROUNDS = 3


class Model(nn.Module):
    """`count` tensors of 64 MiB."""

    def __init__(self, count: int) -> None:
        super().__init__()
        shape = (4096, 4096)
        self.parts = nn.ParameterList(nn.Parameter(torch.rand(shape)) for _ in range(count))


# Each gives a function that saves once, as step `n`, and returns how to wait until it is durable.
Saving = Callable[[int], Callable[[], object]]


def ours(model: Model, folder: Path) -> Saving:
    import tensorkeep as tk

    run = tk.Run(folder / "run", keep=tk.KeepLast(1))
    run.track(model=model)

    def save(step: int) -> Callable[[], object]:
        run.save(step)
        return run.wait

    return save


def torch_save(model: Model, folder: Path) -> Saving:
    def save(step: int) -> Callable[[], object]:
        target = folder / f"step{step}.pth"
        with target.open("wb") as file:
            torch.save(model.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        _sync(folder)
        (folder / f"step{step - 1}.pth").unlink(missing_ok=True)
        return _nothing

    return save


def dcp(model: Model, folder: Path) -> Saving:
    import torch.distributed.checkpoint as dist_cp

    def save(step: int) -> Callable[[], object]:
        target = folder / f"step{step}"
        writer = dist_cp.FileSystemWriter(target, sync_files=True)
        dist_cp.save({"model": model.state_dict()}, storage_writer=writer, no_dist=True)
        _sync(target)
        _sync(folder)
        shutil.rmtree(folder / f"step{step - 1}", ignore_errors=True)
        return _nothing

    return save


def dcp_async(model: Model, folder: Path) -> Saving:
    import torch.distributed as dist
    import torch.distributed.checkpoint as dist_cp

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)

    def save(step: int) -> Callable[[], object]:
        target = folder / f"step{step}"
        writer = dist_cp.FileSystemWriter(target, sync_files=True)
        made = dist_cp.async_save({"model": model.state_dict()}, storage_writer=writer)

        def wait() -> None:
            getattr(made, "upload_completion", made).result()
            _sync(target)
            _sync(folder)
            shutil.rmtree(folder / f"step{step - 1}", ignore_errors=True)

        return wait

    return save


def copy(model: Model, folder: Path) -> Saving:
    """No file at all: what the step must wait for anyway."""
    into = [torch.empty_like(part) for part in model.parts]

    def save(step: int) -> Callable[[], object]:
        with torch.no_grad():
            for target, part in zip(into, model.parts, strict=True):
                target.copy_(part)
        return _nothing

    return save


def _nothing() -> None:
    return None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


WAYS = {each.__name__: each for each in (ours, torch_save, dcp, dcp_async, copy)}


def main() -> None:
    way, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True)
    model = Model(count)
    save = WAYS[way](model, folder)
    for step in range(1, ROUNDS + 1):
        save(step)()
        os.sync()
    began = time.perf_counter()
    wait = save(ROUNDS + 1)
    stalled = time.perf_counter()
    wait()
    ended = time.perf_counter()
    found = {
        "inside_ms": (ended - began) * 1e3,
        "stall_ms": (stalled - began) * 1e3,
        "durable_ms": (ended - began) * 1e3,
    }
    print(json.dumps(found), flush=True)
    os._exit(0)  # the pools of some contestants wait for ever


if __name__ == "__main__":
    main()
