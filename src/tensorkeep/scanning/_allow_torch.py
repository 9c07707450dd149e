"""Allowlisted names of torch: what `torch.save` writes for tensors, parameters and their parts.

Source: torch 2.13 `torch/_utils.py` (`_rebuild_*`), `torch/_tensor.py` (`_reduce_ex_internal`,
`_rebuild_from_type*`), `torch/nn/parameter.py`, `torch/serialization.py` (`persistent_id`,
`_get_layout`), `torch/storage.py`; older names from what versions 0.4 to 2.12 wrote.
"""

from __future__ import annotations

from tensorkeep.dtypes import BY_NAME, BY_STORAGE
from tensorkeep.pickles import Call, Global, Persistent
from tensorkeep.scanning._allow_jagged import jagged
from tensorkeep.scanning._allow_kinds import (
    Entry,
    KindOf,
    Rule,
    any_of,
    empty_hooks,
    is_named,
    takes,
    whole_numbers,
)
from tensorkeep.scanning._allow_table import kind_of
from tensorkeep.scanning._allow_tensor_names import TENSOR_NAMES

_CUDA_STORAGES_TEXT = (
    "BFloat16Storage BoolStorage ByteStorage CharStorage ComplexDoubleStorage ComplexFloatStorage "
    "DoubleStorage FloatStorage HalfStorage IntStorage LongStorage ShortStorage"
)
_TYPES = ("Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double", "Bool", "BFloat16")
_CUDA_STORAGES = tuple(_CUDA_STORAGES_TEXT.split())
# Versions 1.11 to 1.13 had the untyped storage under these names.
_UNTYPED = (
    ("torch.storage", "UntypedStorage"),
    ("torch.storage", "_UntypedStorage"),
    ("torch", "UntypedStorage"),
    ("torch", "_UntypedStorage"),
    ("torch.storage", "TypedStorage"),
    ("torch.storage", "_TypedStorage"),
)
_QSCHEMES_TEXT = (
    "per_tensor_affine per_channel_affine per_tensor_symmetric per_channel_symmetric "
    "per_channel_affine_float_qparams"
)
_QSCHEMES = tuple(_QSCHEMES_TEXT.split())

_VIEW = ("storage", "whole", "shape", "shape")
_VIEW_V2 = takes(*_VIEW, "bool", "hooks", "flat-dict|none?")


def _tensor_v2(args: tuple[object, ...], kind: KindOf) -> bool:
    # Nearly every call of nearly every checkpoint is this one: the same rule, written out.
    if len(args) != 6 or type(args[0]) is not Persistent or type(args[1]) is not int:
        return _VIEW_V2(args, kind)
    size, stride, grad, hooks = args[2:]
    if type(size) is not tuple or type(stride) is not tuple or type(grad) is not bool:
        return _VIEW_V2(args, kind)
    plain = whole_numbers((args[1], *size, *stride)) and empty_hooks(hooks, kind)
    return plain or _VIEW_V2(args, kind)


def tensor_attribute(name: str) -> bool:
    """Whether a tensor may carry an attribute of this name: it must shadow nothing of torch's."""
    return not name.startswith("__") and name not in TENSOR_NAMES


def attributes(state: object, _: KindOf) -> bool:
    """Whether `state` only adds attributes to a tensor (`torch._utils._set_obj_state`)."""
    if type(state) is tuple:
        if len(state) != 2 or state[1]:
            return False
        state = state[0]
    if state is None:
        return True
    if type(state) is not dict:
        return False
    return all(type(key) is str and tensor_attribute(key) for key in state)


def _quantizer(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) != 7 or type(args[4]) is not tuple:
        return False
    view = takes(*_VIEW)(args[:4], kind)
    return view and type(args[5]) is bool and empty_hooks(args[6], kind) and _scales(args[4], kind)


_scales = any_of(
    takes("qscheme", "float", "int"),
    takes("qscheme", "tensor|list", "tensor|list", "whole"),
)

_COO = takes("tensor", "tensor", "shape", "bool|none?")
_COMPRESSED = takes("tensor", "tensor", "tensor", "shape")


def _sparse(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) != 2 or kind(args[0]) != "layout" or type(args[1]) is not tuple:
        return False
    return _COO(args[1], kind) or _COMPRESSED(args[1], kind)


def _with_state(args: tuple[object, ...], kind: KindOf) -> bool:
    return _PARAMETER(args[:3], kind) and len(args) == 4 and attributes(args[3], kind)


_PARAMETER = takes("tensor", "bool", "hooks")


def _rebuild(name: str, rule: Rule, why: str, bounded: bool = False) -> Entry:
    return Entry("torch._utils", name, why, True, False, "rebuild", rule, "tensor", bounded=bounded)


_BYTES_WHY = "makes a tensor over bytes of the file"
_MOVE_WHY = "moves a tensor of the file to a device"
_MOVE = ("dtype", "str|device", "bool")

REBUILDS: tuple[Entry, ...] = (
    _rebuild("_rebuild_tensor", takes(*_VIEW), _BYTES_WHY),
    _rebuild("_rebuild_tensor_v2", _tensor_v2, _BYTES_WHY, bounded=True),
    _rebuild(
        "_rebuild_tensor_v3",
        takes(*_VIEW, "bool", "hooks", "dtype", "flat-dict|none?"),
        _BYTES_WHY,
    ),
    _rebuild("_rebuild_parameter", _PARAMETER, "marks a tensor as a parameter", bounded=True),
    _rebuild(
        "_rebuild_parameter_with_state",
        _with_state,
        "marks a tensor as a parameter and gives it attributes that shadow nothing",
    ),
    _rebuild("_rebuild_qtensor", _quantizer, _BYTES_WHY),
    _rebuild("_rebuild_sparse_tensor", _sparse, "joins tensors of the file to a sparse one"),
    _rebuild(
        "_rebuild_nested_tensor",
        takes("tensor", "tensor", "tensor", "tensor"),
        "joins tensors of the file to a nested one",
    ),
    _rebuild(
        "_rebuild_meta_tensor_no_storage",
        takes("dtype", "shape", "shape", "bool"),
        "makes a tensor without bytes",
    ),
    _rebuild("_rebuild_device_tensor_from_cpu_tensor", takes("tensor", *_MOVE), _MOVE_WHY),
    _rebuild("_rebuild_device_tensor_from_numpy", takes("np-array", *_MOVE), _MOVE_WHY),
    _rebuild("_rebuild_xla_tensor", takes("np-array", *_MOVE), _MOVE_WHY),
)

_BY_NAME = {entry.name: entry for entry in REBUILDS}


def _from_type(args: tuple[object, ...], kind: KindOf) -> bool:
    # It calls its first argument: only a rebuild function, under that function's own rule.
    if len(args) == 4 and kind(args[0]) == "jagged-rebuild":
        return jagged(args, kind)
    if len(args) != 4 or kind(args[0]) != "rebuild" or kind(args[1]) != "tensor-class":
        return False
    assert isinstance(args[0], Global)
    inner = _BY_NAME[args[0].name]
    if inner.rule is None or type(args[2]) is not tuple:
        return False
    return inner.rule(args[2], kind) and attributes(args[3], kind)


def _type_rebuild(module: str, name: str) -> Entry:
    why = "rebuilds a tensor of an allowlisted class and gives it attributes that shadow nothing"
    return Entry(module, name, why, call=True, rule=_from_type, makes="tensor")


def _mention(module: str, name: str, what: str, kind: str) -> Entry:
    return Entry(module, name, f"is only mentioned: {what}", reference=kind)


def _given_bytes(args: tuple[object, ...], _: KindOf) -> bool:
    return len(args) == 1 and given_bytes(args[0]) is not None


def given_bytes(value: object) -> bytes | None:
    """Bytes as a file gives them: themselves, or text encoded (protocols 0 to 2)."""
    if type(value) is bytes:
        return value
    if not isinstance(value, Call) or not is_named(value.func, "_codecs", "encode"):
        return None
    args = value.args
    if type(args) is not tuple or len(args) != 2 or type(args[0]) is not str:
        return None
    try:
        return args[0].encode("latin-1") if args[1] in ("latin1", "latin-1") else None
    except UnicodeEncodeError:
        return None


def _generator_state(_: Call, args: tuple[object, ...]) -> bool:
    # (seed, offset or None, state): torch checks the tensor's size and content.
    return len(args) == 1 and type(args[0]) is tuple and _STATE(args[0], kind_of)


_STATE = takes("int", "int|none", "tensor")
_DEVICE = any_of(takes("str", "int?"), takes("device"))

_PARTS = (
    Entry(
        "torch",
        "Size",
        "holds the numbers of a shape",
        call=True,
        reference="type",
        rule=any_of(takes(), takes("shape")),
        makes="size",
    ),
    Entry(
        "torch",
        "device",
        "names a device",
        call=True,
        reference="type",
        rule=_DEVICE,
        makes="device",
    ),
    Entry(
        "torch.storage",
        "_load_from_bytes",
        "opens bytes of the file as a file of their own, which is judged as such",
        call=True,
        rule=_given_bytes,
        makes="storage",
    ),
    Entry(
        "torch._C",
        "Generator",
        "makes a generator of numbers; its state is checked when it is set",
        call=True,
        reference="plain-value",
        rule=takes("device"),
        makes="torch-generator",
        effects={"BUILD": _generator_state},
    ),
    # At protocol 4 a memory format is this name, with its dot.
    *(
        Entry("torch._utils", f"torch.{name}", "is a constant", reference="constant")
        for name in ("channels_last", "channels_last_3d", "contiguous_format", "preserve_format")
    ),
    Entry(
        "torch.serialization",
        "_get_layout",
        "looks a layout up by its name",
        call=True,
        rule=takes("str"),
        makes="layout",
        fresh=False,
    ),
)

ENTRIES: tuple[Entry, ...] = (
    *REBUILDS,
    _type_rebuild("torch._tensor", "_rebuild_from_type_v2"),
    _type_rebuild("torch._tensor", "_rebuild_from_type"),
    _type_rebuild("torch.tensor", "_rebuild_from_type"),
    *_PARTS,
    *(_mention("torch", name, "a dtype", "dtype") for name in BY_NAME),
    *(_mention("torch", name, "a storage's type", "storage-class") for name in BY_STORAGE),
    # The oldest files name a tensor's type beside its storage.
    *(_mention("torch", f"{name}Tensor", "a tensor's type", "tensor-type") for name in _TYPES),
    *(_mention("torch.cuda", f"{name}Tensor", "a tensor's type", "tensor-type") for name in _TYPES),
    *(_mention("torch.cuda", name, "a storage's type", "storage-class") for name in _CUDA_STORAGES),
    *(_mention(module, name, "a storage's type", "storage-class") for module, name in _UNTYPED),
    *(_mention("torch", name, "a quantisation scheme", "qscheme") for name in _QSCHEMES),
    _mention("torch", "Tensor", "the class of tensors", "tensor-class"),
    _mention("torch.nn.parameter", "Parameter", "the class of parameters", "tensor-class"),
    _mention("torch.nn.parameter", "Buffer", "the class of buffers", "tensor-class"),
)
