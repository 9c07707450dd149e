"""Saves checkpoints of several ranks with torch itself. A process of its own: it forks the ranks.

argv: the folder to save into, how many ranks.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor


def trained(mesh):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.randn(4, 7)).sum().backward()
    optimizer.step()
    return model, optimizer


def whole():
    """By name: sizes that no number of ranks divides, in one to three dimensions."""
    made = {
        "line": torch.arange(13, dtype=torch.float32),
        "rows": torch.randn(7, 5, generator=torch.Generator().manual_seed(1)),
        "half": torch.arange(35).reshape(7, 5).to(torch.bfloat16),
        "block": torch.arange(210).reshape(5, 6, 7).to(torch.complex128),
        "thin": torch.arange(9, dtype=torch.int8).reshape(9, 1),
    }
    return {name: tensor.contiguous() for name, tensor in made.items()}


def distributed(mesh, grid):
    tensors = {}
    for name, tensor in whole().items():
        tensors[f"row.{name}"] = distribute_tensor(tensor, mesh, [Shard(0)])
        tensors[f"copy.{name}"] = distribute_tensor(tensor, mesh, [Replicate()])
        if tensor.dim() > 1:
            tensors[f"col.{name}"] = distribute_tensor(tensor, mesh, [Shard(1)])
            tensors[f"grid.{name}"] = distribute_tensor(tensor, grid, [Shard(1), Shard(0)])
    return tensors | {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}


def rank(number, world, out):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=number, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    grid = init_device_mesh("cpu", (2, world // 2))
    model, optimizer = get_state_dict(*trained(mesh))
    dcp.save({"model": model, "optim": optimizer, "epoch": 7}, checkpoint_id=f"{out}/fsdp2")
    tensors = distributed(mesh, grid)
    dcp.save(tensors, checkpoint_id=f"{out}/sharded")
    floats = {name: value for name, value in tensors.items() if "block" not in name}
    for name, together in (("parts", False), ("together", True)):
        writer = HuggingFaceStorageWriter(
            f"{out}/{name}", save_distributed=True, enable_consolidation=together
        )
        # What puts the parts together takes floating point only (2.13).
        kept = {k: v for k, v in floats.items() if not together or v.is_floating_point()}
        dcp.save(kept, storage_writer=writer)
    dist.destroy_process_group()


if __name__ == "__main__":
    out, world = Path(sys.argv[1]), int(sys.argv[2])
    mp.start_processes(rank, (world, str(out)), nprocs=world, start_method="fork")
