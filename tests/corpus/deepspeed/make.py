"""DeepSpeed checkpoints: python tests/corpus/deepspeed/make.py

Needs DeepSpeed (0.19.8 was taken), which the tests do not install; it runs on two processes of
one CPU. What the weights are is taken from DeepSpeed's own zero_to_fp32.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["DS_ACCELERATOR"] = "cpu"
import deepspeed  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402
from deepspeed.utils.zero_to_fp32 import (  # noqa: E402
    get_fp32_state_dict_from_zero_checkpoint as reference,
)

import tensorkeep as tk  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import facts_of, lines, write_down  # noqa: E402

RANKS = 2


class Net(torch.nn.Module):
    """With a tied weight, a buffer of integers, frozen parameters and odd sizes."""

    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(7, 5)
        self.inner = torch.nn.Linear(5, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.register_buffer("seen", torch.arange(3))
        self.out = torch.nn.Linear(5, 7, bias=False)
        self.out.weight = self.emb.weight
        self.fixed = torch.nn.Linear(5, 5).requires_grad_(False)

    def forward(self, x):
        hidden = self.fixed(self.emb(x))
        return self.out(hidden).sum() + self.norm(self.inner(hidden)).sum()


def rank(number, stage, half, out):
    # Without it the extension for shared memory would be compiled first.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    here = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": RANKS, "LOCAL_SIZE": RANKS}
    os.environ.update({name: str(value) for name, value in here.items()})
    torch.set_num_threads(1)
    meeting = f"file://{out}/meet"
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=RANKS)
    torch.manual_seed(0)
    net = Net()
    config = {
        "train_batch_size": 2 * RANKS,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        "zero_optimization": {"stage": stage},
        "bf16": {"enabled": half},
    }
    parameters = list(net.parameters())
    engine, *_ = deepspeed.initialize(
        model=net, model_parameters=parameters, config=config, dist_init_required=False
    )
    engine.backward(engine(torch.tensor([1, 2])))
    engine.step()
    engine.save_checkpoint(f"{out}/saved", client_state={"epoch": 3})
    dist.barrier()
    dist.destroy_process_group()


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def case(name, stage, half):
    folder = HERE / name
    if folder.exists():
        return print(f"kept as it is: {name}")
    with tempfile.TemporaryDirectory() as out:
        mp.start_processes(rank, (stage, half, out), nprocs=RANKS, start_method="fork")
        saved = Path(out, "saved")
        wanted = reference(str(saved))
        with tk.open(saved) as ckpt:
            prefix = "model."
            got = {n.removeprefix(prefix): ckpt[n] for n in ckpt if n.startswith(prefix)}
            # In stage 1 zero_to_fp32 leaves out what is frozen.
            assert wanted.keys() <= got.keys()
            for key, tensor in wanted.items():
                narrow = tensor.detach().to(getattr(torch, got[key].dtype)).contiguous()
                assert torch.equal(narrow.to(tensor.dtype), tensor.detach())
                assert got[key].read() == raw(narrow), key
        folder.mkdir()
        for path in (saved / "global_step1").iterdir():
            shutil.copy(path, folder)
    (folder / "facts.json").write_text(lines(facts_of(folder)), encoding="ascii")
    return write_down(folder)


if __name__ == "__main__":
    case("stage_1", 1, True)
    case("stage_2", 2, False)
    case("stage_3", 3, True)
