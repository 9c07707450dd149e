"""Modules in the hands of frameworks: saved by them and loaded by us, and the other way round."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tensorkeep as tk
from tensorkeep import errors


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 8, bias=False), nn.Linear(8, 4)
    )


def equal(a, b, bits):
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(bits(one[name]) == bits(two[name]) for name in one)


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path, bits):
    import lightning

    class Task(lightning.LightningModule):
        def __init__(self, seed=0):
            super().__init__()
            self.net = model(seed)

        def training_step(self, batch, _):
            return self.net(batch).sum()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    task = Task()
    trainer = lightning.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, torch.utils.data.DataLoader(torch.randn(8, 6), batch_size=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with tk.empty_weights():
        bare = model()
    assert tk.load_into(bare, tmp_path / "last.ckpt").fits
    assert equal(bare, task.net, bits)
    other = Task(seed=1)
    assert tk.load_into(other, tmp_path / "last.ckpt").fits
    assert equal(other, task, bits)
    optimizers, schedulers = other.configure_optimizers()
    assert tk.load_into(optimizers[0], tmp_path / "last.ckpt").section == "optimizer_states.0"
    theirs = trainer.optimizers[0].state_dict()["state"]
    ours = optimizers[0].state_dict()["state"]
    assert all(bits(ours[n][key]) == bits(theirs[n][key]) for n in theirs for key in theirs[n])
    assert tk.load_into(schedulers[0], tmp_path / "last.ckpt").section == "lr_schedulers.0"
    assert schedulers[0].last_epoch == trainer.lr_scheduler_configs[0].scheduler.last_epoch


class TestAccelerate:
    def test_what_it_dispatched(self, tmp_path, bits):
        from accelerate import dispatch_model

        torch.save(model().state_dict(), tmp_path / "x.pth")
        there = dispatch_model(model(1), {"": "cpu"}, force_hooks=True)
        assert tk.load_into(there, tmp_path / "x.pth").fits
        x = torch.randn(3, 6)
        assert torch.equal(there.eval()(x), model().eval()(x))

    def test_what_it_built_empty(self, tmp_path, bits):
        from accelerate import init_empty_weights

        torch.save(model().state_dict(), tmp_path / "x.pth")
        with init_empty_weights():
            bare = model()
        tk.load_into(bare, tmp_path / "x.pth")
        assert equal(bare, model(), bits)

    def test_what_we_built_empty_and_it_loads(self, tmp_path, bits):
        from accelerate import load_checkpoint_and_dispatch
        from safetensors.torch import save_file

        save_file(model().state_dict(), tmp_path / "x.safetensors")
        with tk.empty_weights():
            bare = model()
        load_checkpoint_and_dispatch(bare, str(tmp_path / "x.safetensors"))
        assert equal(bare, model(), bits)

    def test_what_it_offloads_is_refused(self, tmp_path):
        from accelerate import cpu_offload

        torch.save(model().state_dict(), tmp_path / "x.pth")
        away = cpu_offload(model(1), execution_device=torch.device("cpu"))
        with pytest.raises(errors.BadArgument, match="that accelerate offloads"):
            tk.load_into(away, tmp_path / "x.pth")


@pytest.mark.parametrize("saved", ["plain", "compiled", "both"])
@pytest.mark.parametrize("loaded", ["plain", "compiled"])
def test_compiled(tmp_path, bits, saved, loaded):
    wrap = {
        "plain": lambda m: m,
        "compiled": torch.compile,
        "both": lambda m: torch.compile(nn.DataParallel(m)),
    }
    torch.save(wrap[saved](model()).state_dict(), tmp_path / "x.pth")
    inner = model(1)
    target = wrap[loaded](inner)
    assert tk.load_into(target, tmp_path / "x.pth").fits
    assert equal(inner, model(), bits)
    torch.save(target.state_dict(), tmp_path / "y.pth")
    again = wrap[loaded](model(2))
    again.load_state_dict(torch.load(tmp_path / "y.pth", weights_only=True))
    assert equal(again, target, bits)


PROCESS = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import tensorkeep as tk

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 8, bias=False),
                         nn.Linear(8, 5))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


want = model().state_dict()
ddp = DistributedDataParallel(model(1))
if rank == 0:
    torch.save(DistributedDataParallel.state_dict(ddp), f"{folder}/ddp.pth")
    torch.save(want, f"{folder}/plain.pth")
dist.barrier()
assert tk.load_into(ddp, f"{folder}/plain.pth").fits
assert equal(ddp.module.state_dict(), want)
back = model(3)
assert tk.load_into(back, f"{folder}/ddp.pth").fits
assert equal(back.state_dict(), model(1).state_dict())


def sharded(how, seed):
    if how == "real":
        made = model(seed)
    else:
        with tk.empty_weights():
            made = model(seed)
    mesh = init_device_mesh("cpu", (2,))
    for layer in (made[0], made[2], made[3]):
        fully_shard(layer, mesh=mesh)
    return fully_shard(made, mesh=mesh)


def whole(made):
    return get_model_state_dict(made, options=StateDictOptions(full_state_dict=True))


for how in ("real", "empty"):
    cut = sharded(how, 2)
    if how == "real":
        pieces = {name: p.to_local().data_ptr() for name, p in cut.named_parameters()}
    report = tk.load_into(cut, f"{folder}/plain.pth")
    assert report.fits and report.coverage["bytes"] == 1
    if how == "real":
        assert pieces == {name: p.to_local().data_ptr() for name, p in cut.named_parameters()}
    full = whole(cut)
    if rank == 0:
        assert equal(full, want), how
        torch.save(full, f"{folder}/fsdp.pth")
    dist.barrier()
    plain = model(5)
    assert tk.load_into(plain, f"{folder}/fsdp.pth").fits
    assert equal(plain.state_dict(), want)
    torch.manual_seed(0)
    x = torch.randn(4, 6)
    assert torch.allclose(cut.eval()(x), model().eval()(x), atol=1e-6), how
dist.barrier()
dist.destroy_process_group()
print("done", rank)
"""


def test_ddp_and_fsdp_in_two_processes(tmp_path: Path) -> None:
    """Each process reads the file by itself and keeps its part; nothing is sent."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MASTER_", "RANK", "WORLD"))}
    environment = {**kept, "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        told = [child.communicate(timeout=120) for child in children]
    finally:
        for child in children:
            child.kill()
    for rank, (out, err) in enumerate(told):
        assert f"done {rank}" in out, err[-3000:]


class Blocks(nn.Module):
    """Two blocks, of which adapters take a part, and a head."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"q": nn.Linear(8, 8), "v": nn.Linear(8, 8), "norm": nn.LayerNorm(8)})
            for _ in range(2)
        )
        self.head = nn.Linear(8, 4)


def adapted(seed):
    """A model of PEFT's, whose adapters change what it gives."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=1, target_modules=["q"], init_lora_weights=False)
    return get_peft_model(Blocks(seed), config)


@pytest.mark.filterwarnings("ignore")
def test_peft_takes_a_base_checkpoint_under_its_adapters(tmp_path, bits):
    torch.save(Blocks(0).state_dict(), tmp_path / "base.pth")
    wrapped = adapted(1)
    adapters = {n: t.clone() for n, t in wrapped.state_dict().items() if "lora_" in n}
    found = tk.match(tmp_path / "base.pth", wrapped).match
    assert sorted(found.missing) == sorted(adapters)
    assert not found.unexpected
    with pytest.raises(errors.DoesNotFit, match="4 MISSING"):
        tk.load_into(wrapped, tmp_path / "base.pth")
    report = tk.load_into(wrapped, tmp_path / "base.pth", strict=False)
    assert sorted(report.missing) == sorted(adapters)
    assert all(bits(wrapped.state_dict()[name]) == bits(old) for name, old in adapters.items())
    assert equal(wrapped.unload(), Blocks(0), bits)


@pytest.mark.filterwarnings("ignore")
def test_peft_checkpoints_go_back_into_the_base_and_into_peft(tmp_path, bits):
    wrapped = adapted(0)
    torch.save(wrapped.state_dict(), tmp_path / "wrapped.pth")
    found = tk.match(tmp_path / "wrapped.pth", Blocks(1)).match
    assert not found.missing
    base = Blocks(1)
    report = tk.load_into(base, tmp_path / "wrapped.pth", strict=False)
    assert report.initialised == []
    assert any("LoRA adapters are left out" in note for note in report.notes)
    assert equal(base, Blocks(0), bits)
    again = adapted(2)
    assert tk.load_into(again, tmp_path / "wrapped.pth").fits
    assert equal(again, wrapped, bits)
