"""Run folders of tk.Run, one for each version of the layout: python tests/corpus/runs/make.py"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def parts():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 5)


EXPECTED = {}


def version_1(folder):
    import tensorkeep as tk

    model, optimizer, scheduler = parts()
    seen = {"tokens": 512, "history": [0.5, float("inf")], (1, 2): {"a", "b"}}
    with tk.Run(folder, keep=tk.KeepLast(2) | tk.KeepBest("loss"), config={"lr": 0.01}) as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler, seen=seen)
        for _ in range(7):
            loss = model(torch.randn(4, 3)).square().mean()
            loss.backward()
            optimizer.step()
            scheduler.step()
        run.epoch = 2
        run.save(7, metrics={"loss": loss.item()})
    (folder / ".lock").unlink()
    with tk.open(folder) as ckpt:
        own = {f"model.{name}": raw(value) for name, value in model.state_dict().items()}
        assert own.items() <= {name: ckpt[name].read() for name in ckpt}.items()
        EXPECTED.update({name: ckpt[name].read() for name in ckpt})


if __name__ == "__main__":
    keep(HERE / "version_1", version_1, EXPECTED)
