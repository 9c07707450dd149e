"""Tensors that are made of other tensors: sparse, quantised, nested; and bare storages.

Their structure is judged here, without reading a byte: what contradicts itself is an anomaly,
because loaders build such tensors without checks and later operations trust the numbers. What the
indices in them say is read by `checkpoints.indices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Protocol

from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.formats import _values, sparse_shapes
from tensorkeep.formats._numpy_values import Array
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Inert, Storage, TensorRecord, contiguous_stride, sizes
from tensorkeep.pickles import Call, Global, describe
from tensorkeep.stores.memory import MemoryBlob

_MOST_PARTS = 64
Args = tuple[object, ...]


class Reader(Protocol):
    """What the interpreter gives to these functions."""

    def __call__(self, value: object) -> object:
        """What a raw value means."""

    def tensor(
        self, call: Call, args: Args, dtype: DType | None = None, *, packed: bool = False
    ) -> object:
        """The view of a storage that the first four of `args` describe."""

    def odd(self, kind: str, what: str, where: str, call: Call) -> None:
        """Report an anomaly."""


def storage(found: Storage, dtype: DType | None, offset: int) -> Compound:
    """A storage that stands where a value is expected; of bytes if it is untyped."""
    kind = dtype or BY_NAME["uint8"]
    shape = (found.nbytes // kind.itemsize,)
    record = TensorRecord(kind, shape, (1,), 0, found)
    return Compound("storage", dtype or kind, shape, {"data": record}, {}, offset)


def sparse(read: Reader, call: Call, args: Args) -> object:
    """`_rebuild_sparse_tensor(layout, data)`: COO, CSR, CSC, BSR or BSC."""
    layout = _layout(args[0]) if args else ""
    data = args[1] if len(args) > 1 and isinstance(args[1], tuple) else ()
    names = sparse_shapes.PARTS.get(layout)
    if names is None or len(data) <= len(names):
        return Inert("sparse tensor", call, unread="tensor")
    found = [_part(read, value) for value in data[: len(names)]]
    parts = {name: part for name, part in zip(names, found, strict=True) if part is not None}
    size = _values.size_of(data[len(names)])
    if len(parts) < len(names) or not isinstance(size, tuple) or not sizes(size):
        return Inert("sparse tensor of parts that cannot be read", call, unread="tensor")
    values = parts["values"]
    nnz, wrong = sparse_shapes.check(layout, parts, size)
    if wrong:
        read.odd("sparse-shape-mismatch", f"a sparse tensor {wrong}", "", call)
    details: dict[str, object] = {"nnz": nnz}
    if layout == "sparse_coo" and len(data) > 3:
        details["coalesced"] = data[3] is True
    made = Compound(layout, values.dtype, size, parts, details, call.offset)
    made.broken = bool(wrong)
    return made


def _layout(value: object) -> str:
    """The name of a layout: a mention of it, or `torch.serialization._get_layout(name)`."""
    if isinstance(value, Global):
        return value.name
    if isinstance(value, Call) and isinstance(value.args, tuple) and len(value.args) == 1:
        name = value.args[0]
        return name.removeprefix("torch.") if isinstance(name, str) else ""
    return ""


def _part(read: Reader, value: object) -> TensorRecord | None:
    made = read(value) if isinstance(value, Call) else None
    return made if isinstance(made, TensorRecord) else None


def quantized(read: Reader, call: Call, args: Args) -> object:
    """`_rebuild_qtensor(storage, offset, size, stride, quantizer, requires_grad, hooks)`."""
    record = read.tensor(call, args, packed=True)
    if not isinstance(record, TensorRecord):
        return record
    params = args[4] if len(args) > 4 else None
    scheme = params[0] if isinstance(params, tuple) and params else None
    if record.dtype.kind != "quantized" or not isinstance(scheme, Global):
        return Inert(f"quantised tensor of {record.dtype}", call, unread="tensor")
    assert isinstance(params, tuple)
    parts = {"int_repr": record}
    details: dict[str, object] = {"scheme": scheme.name}
    if len(params) == 3:
        details |= {"scale": _number(params[1]), "zero_point": _number(params[2])}
    elif len(params) == 4:
        details["axis"] = _number(params[3])
        _channels(read, call, params, record, parts)
    return Compound("quantized", record.dtype, record.shape, parts, details, call.offset)


def _channels(
    read: Reader, call: Call, params: Args, record: TensorRecord, parts: dict[str, TensorRecord]
) -> None:
    """Scales and zero points, one for each place along the axis."""
    axis = params[3]
    if type(axis) is not int or not 0 <= axis < len(record.shape):
        along = f"a quantised tensor of {len(record.shape)} dimensions has its scales along "
        read.odd("quantizer-out-of-bounds", along + describe(axis, 40), "", call)
        return
    for name, value in (("scales", params[1]), ("zero_points", params[2])):
        part = _part(read, value)
        count = part.numel if part else len(value) if isinstance(value, list) else -1
        if part is not None:
            parts[name] = part
        if count >= 0 and count != record.shape[axis]:
            what = f"a quantised tensor has {count} {name} for {record.shape[axis]} places"
            read.odd("quantizer-out-of-bounds", what, "", call)


def _number(value: object) -> object:
    # The digits of a huge integer cost the square of their number; Python refuses them.
    return value if type(value) is float or sizes((value,)) else describe(value, 40)


def nested(read: Reader, call: Call, args: Args) -> object:
    """`_rebuild_nested_tensor(buffer, sizes, strides, offsets)`: tensors of one buffer."""
    names = ("buffer", "sizes", "strides", "offsets")
    found = [_part(read, value) for value in args[:4]]
    parts = {name: part for name, part in zip(names, found, strict=False) if part is not None}
    if len(parts) < 4:
        return Inert("nested tensor", call, unread="tensor")
    wrong = _nested_problem(parts)
    if wrong:
        read.odd("nested-out-of-bounds", f"a nested tensor whose {wrong}", "", call)
    count = parts["sizes"].shape[0] if parts["sizes"].shape else 0
    details: dict[str, object] = {"tensors": count}
    made = Compound("nested", parts["buffer"].dtype, (count,), parts, details, call.offset)
    made.broken = bool(wrong)
    return made


def _nested_problem(parts: Mapping[str, TensorRecord]) -> str:
    shape, strides, offsets = (parts[name].shape for name in ("sizes", "strides", "offsets"))
    if len(parts["buffer"].shape) != 1:
        return "buffer has more than one dimension"
    if any(parts[name].dtype.name != "int64" for name in ("sizes", "strides", "offsets")):
        return "sizes are no int64"
    empty = prod(shape) == 0 and prod(strides) == 0 and prod(offsets) == 0
    if not empty and (len(shape) != 2 or shape != strides or offsets != shape[:1]):
        return f"sizes {list(shape)}, strides {list(strides)}, offsets {list(offsets)} do not fit"
    return ""


def jagged(read: Reader, call: Call, args: Args) -> object:
    """`_rebuild_njt(kwargs)`: a buffer, and where along one dimension each tensor begins."""
    given = args[0] if args and isinstance(args[0], dict) else {}
    found = {name: _part(read, given.get(name)) for name in ("values", "offsets", "lengths")}
    parts = {name: part for name, part in found.items() if part is not None}
    axis = given.get("_ragged_idx")
    if "values" not in parts or "offsets" not in parts or type(axis) is not int:
        return Inert("nested tensor (jagged)", call, unread="tensor")
    values, offsets = parts["values"], parts["offsets"]
    details: dict[str, object] = {"tensors": max(offsets.numel - 1, 0), "ragged": _number(axis)}
    made = Compound("jagged", values.dtype, values.shape, parts, details, call.offset)
    if not 1 <= axis <= len(values.shape) or len(offsets.shape) != 1:
        what = f"a jagged tensor along dimension {describe(axis, 40)}"
        read.odd("nested-out-of-bounds", what, "", call)
        made.broken = True
    return made


def wrapper(_read: Reader, call: Call, _args: Args) -> object:
    """`_rebuild_wrapper_subclass` alone: a shape without values."""
    return Inert("tensor subclass without values", call, unread="tensor")


def wrapped(read: Reader, call: Call, name: str, args: Args, state: object) -> object:
    """A subclass that wraps other tensors: what it wraps is in its state."""
    named = args[1] if len(args) > 1 else None
    dtype = BY_NAME.get(named.name) if isinstance(named, Global) else None
    size = _values.size_of(args[2]) if len(args) > 2 else None
    if isinstance(state, tuple) and state:
        state = state[0]
    inner = list(state.items())[:_MOST_PARTS] if isinstance(state, dict) else []
    pairs = [(key[:_MOST_PARTS], value) for key, value in inner if isinstance(key, str)]
    found = {key: _part(read, value) for key, value in pairs}
    parts = {key: part for key, part in found.items() if part is not None}
    shape = size if isinstance(size, tuple) and sizes(size) else ()
    return Compound("subclass", dtype, shape, parts, {"class": name[:200]}, call.offset)


def meta(_read: Reader, call: Call, args: Args) -> object:
    """`_rebuild_meta_tensor_no_storage(dtype, size, stride, requires_grad)`: no values at all."""
    dtype = BY_NAME.get(args[0].name) if args and isinstance(args[0], Global) else None
    size, stride = (_values.size_of(arg) for arg in args[1:3]) if len(args) > 2 else (None, None)
    known = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if dtype is None or not known or not (sizes(size) and sizes(stride)):
        return Inert("meta tensor, without values", call, unread="tensor")
    assert isinstance(size, tuple) and isinstance(stride, tuple)
    if min((*size, *stride), default=0) < 0:
        return Inert("meta tensor of a negative size", call, unread="tensor")
    nowhere = Storage(f"meta-{call.offset}", 0, MemoryBlob(b""), offset=0, device="meta")
    record = TensorRecord(dtype, size, stride, 0, nowhere)
    record.requires_grad = len(args) > 3 and args[3] is True
    return record


def from_numpy(read: Reader, call: Call, args: Args) -> object:
    """`_rebuild_device_tensor_from_numpy(array, dtype, device, requires_grad)`."""
    array = read(args[0]) if args and isinstance(args[0], Call) else None
    named = args[1] if len(args) > 1 else None
    dtype = BY_NAME.get(named.name) if isinstance(named, Global) else None
    if not isinstance(array, Array) or array.data is None or dtype is None:
        return Inert("tensor of another device", call, unread="tensor")
    plain = array.code.replace(">", "<").replace("|", "<").replace("=", "<")
    if (dtype.numpy or "").replace("|", "<") != plain:
        # bfloat16 travels as float32, and `to()` would round it: no bytes of the file are it.
        why = f"tensor of another device, {dtype} {list(array.shape)} kept as {array.code[1:]}"
        return Inert(why, call, unread="tensor")
    stride = contiguous_stride(array.shape)
    if array.fortran:
        stride = tuple(reversed(contiguous_stride(tuple(reversed(array.shape)))))
    blob = MemoryBlob(array.data, "array in the pickle")
    swapped = dtype.itemsize if array.code.startswith(">") else 0
    key = f"array-{call.offset}"
    inside = Storage(key, len(array.data), blob, offset=0, swapped=swapped)
    record = TensorRecord(dtype, array.shape, stride, 0, inside)
    record.requires_grad = len(args) > 3 and args[3] is True
    return record
