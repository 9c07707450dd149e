"""Weights that torch's quantised modules keep packed for a backend, as their state dict names them.

Source: `torch/ao/nn/quantized` of torch 2.13 (`_save_to_state_dict` of each class, `__getstate__`
of its convolutions) and the `__getstate__` of the C++ classes in `ATen/native/quantized`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tensorkeep.dtypes import BY_NAME
from tensorkeep.formats.assembled import Pairs
from tensorkeep.formats.contents import Lens, Storage, TensorRecord
from tensorkeep.pickles import Call
from tensorkeep.stores.memory import MemoryBlob

_PLACES = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "torch.nn.quantized.",
    "torch.nn.intrinsic.quantized.",
)
SCRIPT_OBJECT = "torch.ScriptObject"
_CLASSES = "__torch__.torch.classes."
_EMBEDDING = f"{_CLASSES}quantized.EmbeddingPackedParamsBase"
_PACKED = frozenset(
    f"{_CLASSES}{name}" for name in ("quantized.LinearPackedParamsBase", "rnn.CellParamsBase")
)
_CONVOLUTIONS = frozenset(
    f"Conv{kind}{n}d" for kind in ("", "Transpose", "ReLU") for n in (1, 2, 3)
) | {"ConvAdd2d", "ConvAddReLU2d"}
_TEXT = (
    "in_channels out_channels kernel_size stride padding dilation transposed output_padding groups "
    "padding_mode weight bias scale zero_point training"
)
_OF_CONVOLUTIONS = _TEXT.split()
_SCALARS = ("scale", "zero_point")
# What each class adds to its state dict beside its parameters and buffers.
_SAVED: dict[str, tuple[str, ...]] = {
    "LinearPackedParams": ("dtype", "_packed_params"),
    "EmbeddingPackedParams": ("dtype", "_packed_weight"),
    "PackedParameter": ("param",),
    **dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell"), ("_packed_weight_ih", "_packed_weight_hh")),
    **dict.fromkeys(
        ("Linear", "LinearReLU", "LinearLeakyReLU", "LinearTanh", "QFunctional"), _SCALARS
    ),
    **dict.fromkeys(_CONVOLUTIONS, ("weight", "bias", *_SCALARS)),
    **dict.fromkeys(("Quantize", "DeQuantize", "Embedding", "EmbeddingBag", "LSTM", "GRU"), ()),
    **dict.fromkeys(("ReLU6", "ELU", "LeakyReLU", "Hardswish", "Sigmoid", "Softmax"), ()),
    **dict.fromkeys(("Dropout", "LayerNorm", "GroupNorm", "BatchNorm2d", "BatchNorm3d"), ()),
}
# Those keep their weights in a module of their own: without one they are of another version.
_WITH_PARTS = dict.fromkeys(
    ("Linear", "LinearReLU", "LinearLeakyReLU", "LinearTanh", "Embedding", "EmbeddingBag"),
    "_packed_params",
) | dict.fromkeys(("LSTM", "GRU"), "_all_weight_values")


def _kind(name: str) -> str:
    """The class without its place; "" for one that is not torch's own and quantised."""
    known = name.startswith(_PLACES) and ".reference." not in name
    return name.rpartition(".")[2] if known else ""


def _built(call: Call) -> tuple[object, int]:
    """The one state that an object is given and where, None if there is not one alone."""
    effects = call.effects or []
    if len(effects) != 1 or effects[0].kind != "BUILD":
        return None, 0
    return effects[0].args[0], effects[0].offset


def convolution(call: Call, name: str) -> dict[str, object] | None:
    """The state of a quantised convolution, which is pickled as a tuple, as others have it."""
    given = _built(call)[0] if _kind(name) in _CONVOLUTIONS else None
    if not isinstance(given, tuple) or len(given) != len(_OF_CONVOLUTIONS):
        return None
    empty: dict[str, object] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    return empty | dict(zip(_OF_CONVOLUTIONS, given, strict=True))


def saved(name: str, state: Mapping[str, object], modules: Pairs, offset: int) -> Pairs | None:
    """Names and raw values that a quantised class adds to its state dict, without those None.

    `offset` is that of the call that makes the module. None if this version of torch's class is
    not known, or it is another class.
    """
    kind = _kind(name)
    keys = _SAVED.get(kind)
    part = _WITH_PARTS.get(kind)
    if keys is None or any(key not in state for key in keys):
        return None
    if part is not None and part not in dict(modules):
        return None
    pairs: Pairs = []
    for key in keys:
        value = state[key]
        if key in _SCALARS:
            value = _scalar(value, f"{key} of the module at byte {offset}")
        if value is not None:
            pairs.append((key, value))
    return pairs


def is_packed(name: str) -> bool:
    """Whether modules of this class hold packed weights themselves."""
    return any(key not in _SCALARS for key in _SAVED.get(_kind(name), ()))


def _scalar(value: object, key: str) -> object:
    """`torch.tensor(value)`, which the file does not hold; a tensor itself stays what it is."""
    if type(value) is float:
        try:
            dtype, data = BY_NAME["float32"], struct.pack("<f", value)
        except OverflowError:
            return value
    elif type(value) is int and -(1 << 63) <= value < 1 << 63:
        dtype, data = BY_NAME["int64"], struct.pack("<q", value)
    else:
        return value
    storage = Storage(key, len(data), MemoryBlob(data, key), offset=0)
    return TensorRecord(dtype, (), (), 0, storage)


def unpacked(call: Call, look: Lens, changed: Mapping[int, int]) -> object:
    """What a C++ object of torch's own was packed from; None if `call` makes something else."""
    given, offset = _built(call)
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], str):
        return None
    state, kind = given
    if not isinstance(state, tuple):
        return None
    lists = [part for part in state if isinstance(part, list)]
    if any(changed.get(id(part), -1) > offset for part in lists):
        return None  # what it was given is not what is there now
    if kind == _EMBEDDING:  # a version, the weight, and what is computed from it again
        return look(lists[0][0]) if lists and len(lists[0]) == 1 else None
    return state if kind in _PACKED else None
