"""tensorkeep: read, check and convert PyTorch checkpoints without running them.

    import tensorkeep as tk
    tk.scan("model.pth").verdict
    tk.convert("model.pth", "model.safetensors")

Names are imported when they are first used, so that `import tensorkeep` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tensorkeep.errors import TensorkeepError
from tensorkeep.facts import Limits

if TYPE_CHECKING:
    from tensorkeep.checkpoints.checkpoint import Checkpoint
    from tensorkeep.checkpoints.keeping import KeepBest, KeepEvery, KeepLast, KeepWithin
    from tensorkeep.checkpoints.opening import open_checkpoint as open
    from tensorkeep.checkpoints.tensor import TensorRef
    from tensorkeep.converting import convert
    from tensorkeep.diffing import diff
    from tensorkeep.inspecting import inspect
    from tensorkeep.live.fitting import match
    from tensorkeep.live.guarding import guard
    from tensorkeep.live.int8 import Int8Linear, replace_linear
    from tensorkeep.live.into import empty_weights, load_into
    from tensorkeep.live.loading import load
    from tensorkeep.live.saving import save
    from tensorkeep.live.whole import load_model
    from tensorkeep.quantizing import quantize
    from tensorkeep.scanning.targets import scan
    from tensorkeep.scanning.weights_only import safe_globals
    from tensorkeep.training.learning_rate import set_lr
    from tensorkeep.training.proving import prove_resume
    from tensorkeep.training.run import Run
    from tensorkeep.verifying import verify

__version__ = "0.1.0"
__all__ = [
    "Checkpoint",
    "Int8Linear",
    "KeepBest",
    "KeepEvery",
    "KeepLast",
    "KeepWithin",
    "Limits",
    "Run",
    "TensorRef",
    "TensorkeepError",
    "__version__",
    "convert",
    "diff",
    "empty_weights",
    "guard",
    "inspect",
    "load",
    "load_into",
    "load_model",
    "match",
    "open",
    "prove_resume",
    "quantize",
    "replace_linear",
    "safe_globals",
    "save",
    "scan",
    "set_lr",
    "verify",
]

_LAZY = {
    "Checkpoint": ("tensorkeep.checkpoints.checkpoint", "Checkpoint"),
    "Int8Linear": ("tensorkeep.live.int8", "Int8Linear"),
    "KeepBest": ("tensorkeep.checkpoints.keeping", "KeepBest"),
    "KeepEvery": ("tensorkeep.checkpoints.keeping", "KeepEvery"),
    "KeepLast": ("tensorkeep.checkpoints.keeping", "KeepLast"),
    "KeepWithin": ("tensorkeep.checkpoints.keeping", "KeepWithin"),
    "Run": ("tensorkeep.training.run", "Run"),
    "TensorRef": ("tensorkeep.checkpoints.tensor", "TensorRef"),
    "convert": ("tensorkeep.converting", "convert"),
    "diff": ("tensorkeep.diffing", "diff"),
    "empty_weights": ("tensorkeep.live.into", "empty_weights"),
    "guard": ("tensorkeep.live.guarding", "guard"),
    "inspect": ("tensorkeep.inspecting", "inspect"),
    "load": ("tensorkeep.live.loading", "load"),
    "load_into": ("tensorkeep.live.into", "load_into"),
    "load_model": ("tensorkeep.live.whole", "load_model"),
    "match": ("tensorkeep.live.fitting", "match"),
    "open": ("tensorkeep.checkpoints.opening", "open_checkpoint"),
    "prove_resume": ("tensorkeep.training.proving", "prove_resume"),
    "quantize": ("tensorkeep.quantizing", "quantize"),
    "replace_linear": ("tensorkeep.live.int8", "replace_linear"),
    "safe_globals": ("tensorkeep.scanning.weights_only", "safe_globals"),
    "save": ("tensorkeep.live.saving", "save"),
    "scan": ("tensorkeep.scanning.targets", "scan"),
    "set_lr": ("tensorkeep.training.learning_rate", "set_lr"),
    "verify": ("tensorkeep.verifying", "verify"),
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'tensorkeep' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    try:
        value = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name == "torch":  # a class of torch's kind, unlike functions that ask when called
            import_module("tensorkeep.live.loading").require_torch()
        raise
    globals()[name] = value
    if module.startswith("tensorkeep.checkpoints."):
        _hand_torch_down()
    return value


def _hand_torch_down() -> None:
    """Tell `TensorRef.torch` where torch lives: in a room that its own may not import."""
    handed = import_module("tensorkeep.checkpoints.tensor").TO_TORCH
    if not handed:
        handed.append(lambda ref: import_module("tensorkeep.live.loading").tensor_of(ref))


def __dir__() -> list[str]:
    return sorted(__all__)
