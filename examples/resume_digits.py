"""Train on scikit-learn's digits, be killed at a random moment, and go on to the same numbers.

    python examples/resume_digits.py

It starts itself as a child twice: once undisturbed, once with SIGKILL in the middle, whereupon the
same command goes on. In the end the two runs are compared, bit for bit.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 120


def train(folder: str) -> None:
    """The training function: what it needs of tensorkeep is four lines."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    import tensorkeep as tk

    torch.manual_seed(0)
    found = load_digits()
    images = torch.tensor(found.images[:1500], dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(found.target[:1500])
    loader = DataLoader(TensorDataset(images, labels), batch_size=50, shuffle=True)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(576, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    with tk.Run(folder, keep=tk.KeepLast(2) | tk.KeepBest("loss", "min")) as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        step = run.resume()
        print(f"begins at step {step}", flush=True)
        while step < STEPS:
            for batch, wanted in run.batches(loader):
                loss = nn.functional.cross_entropy(model(batch), wanted)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                step += 1
                run.save(step, metrics={"loss": loss.item()})
                if step == STEPS:
                    break


def main() -> None:
    if len(sys.argv) > 1:
        train(sys.argv[1])
        return
    import tensorkeep as tk

    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder, "whole"), Path(folder, "cut")
        command = [sys.executable, __file__]
        subprocess.run([*command, whole], check=True)
        child = subprocess.Popen([*command, cut])
        while not list(cut.glob(f"step-000000[{random.choice('2345')}]*")):
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        print("killed", flush=True)
        subprocess.run([*command, cut], check=True)
        a, b = tk.load(whole, nested=True), tk.load(cut, nested=True)
        same = all((a["model"][name] == b["model"][name]).all() for name in a["model"])
        print(f"step {a['step']} and step {b['step']}: {'equal' if same else 'DIFFERENT'}")
        sys.exit(0 if same and a["step"] == b["step"] else 1)


if __name__ == "__main__":
    main()
