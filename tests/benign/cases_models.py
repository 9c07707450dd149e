"""Whole models of `torch.nn`, saved as objects, in torch's zip, legacy and plain pickles."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.utils.prune
from torch import nn
from writing import Case, Make, pickled, torch_legacy, torch_zip

ROOT = Path(__file__).resolve().parents[2]


def _tool():
    path = ROOT / "tools" / "make_allowlist.py"
    spec = importlib.util.spec_from_file_location("make_allowlist", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def every_module() -> nn.Module:
    """One of each class, in every way the generator of the allowlist knows to make it."""
    tool = _tool()
    return nn.ModuleList(
        one for cls in tool.module_classes().values() for one in tool.instances(cls)
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2)).eval()


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.SiLU(inplace=True),
        nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(4, 3, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def named() -> nn.Module:
    return nn.ModuleDict({"encoder": perceptron(), "decoder": nn.ModuleList([nn.Linear(2, 2)])})


def recurrent() -> nn.Module:
    return nn.ModuleList(
        [nn.LSTM(3, 4, 2, bidirectional=True), nn.GRU(3, 4), nn.RNN(3, 4, bias=False)]
    )


def projected() -> nn.Module:
    return nn.LSTM(3, 4, proj_size=2)


def transformer() -> nn.Module:
    return nn.Transformer(4, 2, 1, 1, 8)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def activations() -> nn.Module:
    functions = (nn.functional.silu, nn.functional.leaky_relu, nn.functional.mish)
    return nn.ModuleList(nn.TransformerEncoderLayer(4, 2, 8, activation=f) for f in functions)


def with_module_activation() -> nn.Module:
    return nn.TransformerDecoderLayer(4, 2, 8, activation=nn.GELU())


def parameters() -> nn.Module:
    weights = nn.ParameterDict({"a": torch.ones(2), "b": nn.Parameter(torch.ones(1))})
    return nn.ModuleList([nn.Module(), nn.ModuleDict({"x": nn.Identity()})]).append(
        nn.ModuleDict({"w": weights, "l": nn.ParameterList([torch.ones(1), torch.ones(2)])})
    )


def tied() -> nn.Module:
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    return nn.Sequential(embedding, head)


def half() -> nn.Module:
    return perceptron().to(torch.bfloat16).requires_grad_(False)


def buffers() -> nn.Module:
    model = nn.Module()
    model.register_buffer("mask", torch.ones(2, dtype=torch.bool), persistent=False)
    model.register_buffer("none", None)
    model.register_parameter("absent", None)
    model.scale = nn.Parameter(torch.ones(1))
    return model


def attributed() -> nn.Module:
    """What users hang on a module of torch: plain values."""
    model = perceptron()
    model.class_to_idx = {"cat": 0, "dog": 1}
    model.names = ["cat", "dog"]
    model.input_size = torch.Size([4])
    model[0].note = None
    return model


def parallel() -> nn.Module:
    return nn.DataParallel(perceptron())


def parallel_on_devices() -> nn.Module:
    """As a machine with accelerators saves it."""
    model = nn.DataParallel(perceptron())
    model.device_ids, model.output_device = [0, 1], 0
    model.src_device_obj = torch.device("cuda", 0)
    return model


def pruned_for_good() -> nn.Module:
    model = nn.Linear(2, 2)
    nn.utils.prune.l1_unstructured(model, "weight", 0.5)
    return nn.Sequential(nn.utils.prune.remove(model, "weight"))


def losses() -> nn.Module:
    return nn.ModuleList([nn.CrossEntropyLoss(torch.ones(3)), nn.MSELoss(), nn.CTCLoss()])


def in_a_checkpoint() -> dict:
    return {"epoch": 1, "model": perceptron(), "ema": None, "args": {"lr": 0.1}}


MODELS: dict[str, Make] = {
    "every-module": every_module, "perceptron": perceptron, "convolutions": convolutions,
    "named": named, "recurrent": recurrent, "projected": projected, "transformer": transformer,
    "encoder": encoder, "activations": activations, "module-activation": with_module_activation,
    "parameters": parameters, "tied": tied, "half": half, "buffers": buffers,
    "attributed": attributed, "parallel": parallel,
    "parallel-on-devices": parallel_on_devices, "pruned": pruned_for_good, "losses": losses,
    "in-a-checkpoint": in_a_checkpoint,
}  # fmt: skip


class Net(nn.Module):
    """A class of the user's own, as scripts have it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.layer(x))


def weight_norm() -> nn.Module:
    return nn.utils.weight_norm(nn.Linear(2, 2))


def spectral_norm() -> nn.Module:
    return nn.utils.spectral_norm(nn.Linear(2, 2))


def prune() -> nn.Module:
    return nn.utils.prune.l1_unstructured(nn.Linear(2, 2), "weight", 0.5)


def scheduler() -> dict:
    return {"scheduler": torch.optim.lr_scheduler.StepLR(optimizer()["optimizer"], 3)}


def averaged() -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))


def optimizer() -> dict:
    # Unpickling one wraps the `step` of its class for the whole process.
    return {"optimizer": torch.optim.Adam(perceptron().parameters())}


CASES: dict[str, Case] = {
    **{f"model/{name}-zip": torch_zip(make) for name, make in MODELS.items()},
    **{f"model/{name}-legacy": torch_legacy(make) for name, make in MODELS.items()},
    **{f"model/perceptron-protocol-{n}": pickled(perceptron, n) for n in range(2, 6)},
    **{f"model/perceptron-zip-{n}": torch_zip(perceptron, pickle_protocol=n) for n in (2, 4, 5)},
}

ODD: dict[str, tuple[Case, set[str]]] = {
    "odd/own-class": (torch_zip(Net), {"pickle/unknown-class"}),
    "odd/weight-norm": (torch_zip(weight_norm), {"pickle/kept-hook", "pickle/unknown-class"}),
    "odd/spectral-norm": (torch_zip(spectral_norm), {"pickle/kept-hook", "pickle/unknown-class"}),
    "odd/prune": (torch_zip(prune), {"pickle/kept-hook", "pickle/unknown-class"}),
    "odd/scheduler": (torch_zip(scheduler), {"pickle/unknown-class"}),
    # Its `avg_fn` may be any function of the user's, which every update calls.
    "odd/averaged": (torch_zip(averaged), {"pickle/unknown-class"}),
    "odd/optimizer": (torch_zip(optimizer), {"pickle/unknown-class"}),
}
