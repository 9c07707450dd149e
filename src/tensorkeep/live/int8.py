"""Linear layers that keep int8 codes, and multiply them by their scales each time that they run."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.edits.int8 import SCALE
from tensorkeep.errors import NothingSelected
from tensorkeep.live import dequantising
from tensorkeep.live.incoming import Incoming, incoming
from tensorkeep.live.lazy import WHOLE
from tensorkeep.matching.finding import find
from tensorkeep.matching.specs import Spec


class Int8Linear(nn.Module):
    """`nn.Linear` for inference, with `weight` int8 [out, in] and `weight_scale` [out, 1].

    Both are buffers. The product is made at each call, in the scale's dtype, then cast to that of
    the input: the same numbers as those of a layer with the dequantised weight, a quarter of
    float32's memory between calls, and more time for each.
    """

    weight: torch.Tensor
    weight_scale: torch.Tensor
    bias: nn.Parameter | None

    def __init__(self, like: nn.Linear) -> None:
        """As large as `like`, on its device, with its bias; codes are 0 until they are loaded."""
        super().__init__()
        self.in_features, self.out_features = like.in_features, like.out_features
        old = like.weight
        self.register_buffer("weight", torch.zeros_like(old, dtype=torch.int8, requires_grad=False))
        scale = torch.ones(old.shape[0], 1, dtype=torch.float32, device=old.device)
        self.register_buffer("weight_scale", scale)
        self.register_parameter("bias", like.bias)
        self.train(like.training)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        weight = self.weight.to(self.weight_scale.dtype) * self.weight_scale
        return functional.linear(given, weight.to(given.dtype), self.bias)

    def extra_repr(self) -> str:
        """As `nn.Linear` has it."""
        has = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={has}"


def replace_linear(module: nn.Module, source: Source | Checkpoint) -> list[str]:
    """Make an `Int8Linear` of each `nn.Linear` below `module` that has int8 codes in `source`.

    The names of those replaced. Nothing is loaded: `load_into` does that next, and makes floats
    of codes for other layers. Left alone are subclasses of `nn.Linear`, weights that are shared
    with another module, and parts of modules that use the weights of their parts directly.

    Raises `NothingSelected` if there is none, and what opening raises.
    """
    if isinstance(source, Checkpoint):
        return _replace(module, source)
    with open_checkpoint(source) as ckpt:
        return _replace(module, ckpt)


def _replace(module: nn.Module, ckpt: Checkpoint) -> list[str]:
    subject = type(module).__qualname__
    coming = incoming(ckpt, None, (), subject)
    found = dequantising.pairs(coming.sources)
    dequantising.dequantise(coming, found)
    quantised = _in_module(module, coming, set(found))
    layers = {name: each for name, each in _linears(module) if f"{name}.weight" in quantised}
    if not layers:
        raise NothingSelected(
            ckpt.path,
            expected=f"int8 weights, with scales, of linear layers of {subject}",
            got="none",
            remedy="Write some with: tensorkeep quantize.",
        )
    for name, layer in layers.items():
        module.set_submodule(name, Int8Linear(layer))
    return list(layers)


def _in_module(module: nn.Module, coming: Incoming, found: set[str]) -> set[str]:
    """The names in the module of what is `found` in the file."""
    wanted = {
        name: Spec(str(tensor.dtype)[6:], tuple(tensor.shape))
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, torch.Tensor) and SCALE not in name
    }
    names = find(coming.specs(), wanted).names
    return {name for name, source in names.items() if source in found}


def _linears(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    # These would take the codes of their parts for weights.
    inside = {
        id(part) for each in module.modules() if isinstance(each, WHOLE) for part in each.modules()
    }
    uses: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    return [
        (name, each)
        for name, each in module.named_modules()
        if type(each) is nn.Linear
        and name
        and id(each) not in inside
        and uses[id(each.weight)] == 1
        and not hasattr(each, "parametrizations")
    ]
