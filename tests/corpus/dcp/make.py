"""Folders of torch.distributed.checkpoint: python tests/corpus/dcp/make.py (torch 2.13)"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.checkpoint.filesystem import FileSystemWriter, SerializationFormat
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402

ROWS = torch.arange(15, dtype=torch.float32).reshape(5, 3)
GRID = torch.arange(21, dtype=torch.int32).reshape(7, 3)
WIDE = torch.arange(10, dtype=torch.bfloat16).reshape(2, 5)
TRAINING = {
    "model": {"a.weight": ROWS, "a.bias": WIDE[0].clone(), "steps": torch.tensor(7)},
    "optim": {
        "state": {"a.weight": {"exp_avg": ROWS.neg(), "step": torch.tensor(3.0)}},
        "param_groups": [{"params": ["a.weight", "a.bias"], "lr": 0.01, "betas": (0.9, 0.99)}],
    },
    "epoch": 3,
    "notes": {"run": "first", "seen": [1, 2, 3]},
}


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def save(value, folder, **options):
    """Into a path without a directory: torch writes the path into `.metadata`."""
    os.chdir(folder.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = FileSystemWriter(folder.name, **options)
        dcp.save(value, storage_writer=writer, no_dist=not dist.is_initialized())


def rank(number, world, folder, meeting):
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=world)
    line, grid = init_device_mesh("cpu", (world,)), init_device_mesh("cpu", (2, world // 2))
    tensors = {
        "rows": distribute_tensor(ROWS, line, [Shard(0)]),
        "columns": distribute_tensor(WIDE, line, [Shard(1)]),
        "grid": distribute_tensor(GRID, grid, [Shard(0), Shard(1)]),
        "everywhere": torch.tensor([1.0, 2.0]),
    }
    save(tensors, Path(folder))
    dist.destroy_process_group()


def four_ranks(folder):
    with tempfile.TemporaryDirectory() as meeting:
        arguments = (4, str(folder), f"{meeting}/meet")
        mp.start_processes(rank, arguments, nprocs=4, start_method="fork")


if __name__ == "__main__":
    trained = {
        "model.a.weight": raw(ROWS),
        "model.a.bias": raw(WIDE[0]),
        "model.steps": raw(torch.tensor(7)),
        "optim.state.a.weight.exp_avg": raw(ROWS.neg()),
        "optim.state.a.weight.step": raw(torch.tensor(3.0)),
    }
    keep(HERE / "one_process", lambda folder: save(TRAINING, folder), trained)
    form = SerializationFormat.SAFETENSORS
    keep(
        HERE / "safetensors_inside",
        lambda folder: save(TRAINING, folder, serialization_format=form),
        trained,
    )
    sharded = {"rows": raw(ROWS), "columns": raw(WIDE), "grid": raw(GRID)}
    sharded["everywhere"] = raw(torch.tensor([1.0, 2.0]))
    keep(HERE / "four_ranks", four_ranks, sharded)
