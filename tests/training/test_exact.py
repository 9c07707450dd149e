"""Interrupted equals uninterrupted, bit for bit: models, optimizers, every schedule, and more."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, Dataset

import tensorkeep as tk

TOTAL, CUT = 9, 4


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 4)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(),
        nn.Linear(144, 4),
    )  # fmt: skip


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x.squeeze(1)).mean(1))


MODELS: list[Callable[[], nn.Module]] = [mlp, cnn, Transformer]
OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, 0.05, momentum=0.9, nesterov=True),
    "AdamW": lambda params: torch.optim.AdamW(params, 0.01, amsgrad=True),
}


def sequence(o: torch.optim.Optimizer) -> Any:
    parts = [schedules.LinearLR(o, 0.1, total_iters=3), schedules.CosineAnnealingLR(o, 6)]
    return schedules.SequentialLR(o, parts, [3])


def chained(o: torch.optim.Optimizer) -> Any:
    return schedules.ChainedScheduler([schedules.ConstantLR(o), schedules.ExponentialLR(o, 0.9)])


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: schedules.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [3, 6]),
    "ConstantLR": lambda o: schedules.ConstantLR(o, 0.3, 5),
    "LinearLR": lambda o: schedules.LinearLR(o, 0.2, total_iters=7),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 9, 2.0),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 3, 2),
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda step: 0.95),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.1, total_steps=20),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.1, 3),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": sequence,
    "ChainedScheduler": chained,
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.02, 4),
}


class Augmented(Dataset):
    """Each sample drawn from numpy, Python and torch."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = np.random.rand() + random.random()
        return torch.rand(1, 8, 8) + index / 20 + noise, index % 4


class Job:
    """Everything that a training has, built anew as a fresh process would."""

    def __init__(
        self,
        model: Callable[[], nn.Module] = mlp,
        optimizer: str = "AdamW",
        schedule: str = "StepLR",
        *,
        workers: int = 0,
        ema: bool = False,
        accumulate: int = 1,
        bfloat16: bool = False,
    ) -> None:
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)
        self.model = model()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = SCHEDULES[schedule](self.optimizer)
        averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        self.ema = (
            torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=averaging) if ema else None
        )
        self.loader = DataLoader(Augmented(), 4, shuffle=True, num_workers=workers)
        self.accumulate, self.bfloat16 = accumulate, bfloat16

    def train(self, folder: Path, until: int) -> None:
        with tk.Run(folder, keep=tk.KeepLast(2)) as run:
            run.track(model=self.model, optimizer=self.optimizer, scheduler=self.scheduler)
            if self.ema is not None:
                run.track(ema=self.ema)
            step = run.resume()
            while step < until:
                for batch in run.batches(self.loader):
                    step += 1
                    self.step(step, *batch)
                    # Gradients are no state: a save stands where they have been used.
                    if step % self.accumulate == 0 or step == until:
                        run.save(step)
                    if step == until:
                        break

    def step(self, step: int, x: torch.Tensor, y: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss = nn.functional.cross_entropy(self.model(x), y) / self.accumulate
        loss.backward()
        if step % self.accumulate:
            return
        self.optimizer.step()
        self.optimizer.zero_grad()
        plateau = isinstance(self.scheduler, schedules.ReduceLROnPlateau)
        self.scheduler.step(*([loss.item()] if plateau else []))
        if self.ema is not None:
            self.ema.update_parameters(self.model)


def same(
    tmp_path: Path, *arguments: Any, cut: int = CUT, total: int = TOTAL, **options: Any
) -> None:
    """The last checkpoint of a run in one piece, and of one in two, file by file and bit by bit."""
    Job(*arguments, **options).train(tmp_path / "whole", total)
    Job(*arguments, **options).train(tmp_path / "cut", cut)
    torch.rand(9)
    Job(*arguments, **options).train(tmp_path / "cut", total)
    report = tk.diff(f"{tmp_path}/whole@{total}", f"{tmp_path}/cut@{total}")
    assert report.same, report.to_dict()
    for file in (tmp_path / "whole" / f"step-{total:08d}").iterdir():
        if file.name != "manifest.json":
            assert (
                file.read_bytes() == (tmp_path / "cut" / file.parent.name / file.name).read_bytes()
            )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_models_and_optimizers(tmp_path, model, optimizer) -> None:
    same(tmp_path, model, optimizer)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(tmp_path, schedule) -> None:
    same(tmp_path, mlp, "SGD", schedule)


@pytest.mark.parametrize("model", [cnn, Transformer])
def test_workers_with_augmentation(tmp_path, model) -> None:
    with pytest.warns(UserWarning, match="second time"):
        same(tmp_path, model, workers=2, cut=7)


def test_averaged_weights(tmp_path) -> None:
    same(tmp_path, cnn, ema=True)


def test_accumulated_gradients(tmp_path) -> None:
    same(tmp_path, mlp, accumulate=2, cut=4, total=10)


def test_autocast(tmp_path) -> None:
    same(tmp_path, Transformer, bfloat16=True)
