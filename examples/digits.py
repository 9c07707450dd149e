"""Train a small classifier on scikit-learn's digits and save it as people save checkpoints.

Makes `digits.pth`, which lies beside this file: weights, optimizer, epoch and accuracy in one
dict, written by `torch.save`. It needs torch and scikit-learn, a CPU and a few seconds:

    python examples/digits.py

The seed is fixed and one thread computes, so the same torch writes the same file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

EPOCHS = 12
BATCH = 64
HELD_OUT = 397  # of 1,797 images; the rest is trained on

Split = tuple[torch.Tensor, torch.Tensor]


def build() -> nn.Sequential:
    """Two convolutions over 8x8 images, then ten scores."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def splits() -> tuple[Split, Split]:
    """Training and held-out images, shape (n, 1, 8, 8) in 0..1, with their labels."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    return (images[training], labels[training]), (images[held_out], labels[held_out])


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, split: Split) -> None:
    """One pass over the split, in a new order."""
    images, labels = split
    model.train()
    for batch in torch.randperm(len(labels)).split(BATCH):
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(model: nn.Module, split: Split) -> float:
    """The part of the split that is recognised, 0 to 1."""
    images, labels = split
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def main(path: Path) -> None:
    """Train, print how well it went, save to `path`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    training, held_out = splits()
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(1, EPOCHS + 1):
        train_epoch(model, optimizer, training)
        score = accuracy(model, held_out)
        print(f"epoch {epoch:2d}  accuracy on {HELD_OUT} held-out images: {score:.4f}")
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": EPOCHS,
        "val_accuracy": score,
    }
    torch.save(checkpoint, path)
    print(f"wrote {path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("digits.pth"))
