"""What a training writes beside its weights: optimizers, schedulers, scalers, generators."""

from __future__ import annotations

from typing import Any

import torch
from writing import Case, torch_zip

# Adagrad of sparse gradients only, LBFGS takes a closure, Muon two-dimensional parameters.
OPTIMIZERS = sorted(
    name
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and name != "Optimizer"
)


def model() -> torch.nn.Module:
    return torch.nn.Linear(3, 2, bias=False)


def stepped(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = model()
    if name == "SparseAdam":
        net = torch.nn.Embedding(4, 2, sparse=True)
    given = torch.tensor([1, 2]) if name == "SparseAdam" else torch.ones(4, 3)
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = net(given).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return net, optimizer


def checkpoint(name: str) -> dict[str, Any]:
    net, optimizer = stepped(name)
    return {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 0.25,
    }


S = torch.optim.lr_scheduler
SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: S.StepLR(o, 2),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: S.ConstantLR(o),
    "LinearLR": lambda o: S.LinearLR(o),
    "ExponentialLR": lambda o: S.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: S.PolynomialLR(o),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 5),
    "CyclicLR": lambda o: S.CyclicLR(o, 0.1, 0.2, cycle_momentum=False),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 0.1, total_steps=10),
    "ReduceLROnPlateau": lambda o: S.ReduceLROnPlateau(o),
    "LambdaLR": lambda o: S.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: S.MultiplicativeLR(o, lambda epoch: 0.9),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.ConstantLR(o), S.LinearLR(o)], [2]),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o), S.LinearLR(o)]),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.1),
}


def scheduler(name: str) -> Any:
    _, optimizer = stepped("SGD")
    made = SCHEDULERS[name](optimizer)
    made.step(0.5) if name == "ReduceLROnPlateau" else made.step()
    return made.state_dict()


def averaged() -> dict[str, Any]:
    net = torch.optim.swa_utils.AveragedModel(model())
    net.update_parameters(model())
    return {"ema": net.state_dict(), "decay": 0.999}


def scaler() -> dict[str, Any]:
    return {"scaler": torch.amp.GradScaler("cpu").state_dict()}


def generators() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "seeded": torch.Generator().manual_seed(3).get_state()}


CASES: dict[str, Case] = {
    **{f"optimizer/{name}": torch_zip(lambda name=name: checkpoint(name)) for name in OPTIMIZERS},
    **{f"scheduler/{name}": torch_zip(lambda name=name: scheduler(name)) for name in SCHEDULERS},
    "training/averaged": torch_zip(averaged),
    "training/scaler": torch_zip(scaler),
    "training/generators": torch_zip(generators),
}
