"""Casts: the bytes of one dtype turned into those of another, as torch turns them.

`cast` gives, bit for bit, what `torch.Tensor.to(dtype)` of torch 2.13 gives for a contiguous
tensor on an x86-64 processor with AVX2: rounding to nearest even, float64 to a float narrower than
float32 by way of float32 (two roundings), integers to such floats by way of float32 as well,
float8 overflow as the format's entry in `_floats` says, integers wrapped.

Where torch's own answer depends on the processor or on where in the tensor an element lies, one
answer is given, everywhere:

- NaN. float16 to float32 keeps the payload and makes it quiet, and float64 to bfloat16 gives
  0xFFFF, both as torch's vector loops do; in the elements that are left over at a tensor's end
  torch writes another payload. (float32 to bfloat16 gives 0xFFFF too; all others give 0x7FC0.)
- float to integer, out of range. To int8, int16, uint16 and int32: the low bits of what a 32-bit
  conversion gives (-2**31 where the value does not fit); to uint8, uint32, int64 and uint64: of a
  64-bit one (-2**63), uint64 with 2**63 taken off first where the value is not below it. This is
  what torch does on x86-64, for uint32 only in part of its loops. Values in range have one answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorkeep.dtypes import DType
from tensorkeep.edits import _floats
from tensorkeep.errors import BadArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Buffer = bytes | bytearray | memoryview

_PARTS = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
_PLAIN = {
    "bool": "|u1", "uint8": "|u1", "int8": "|i1",
    "uint16": "<u2", "int16": "<i2", "uint32": "<u4", "int32": "<i4",
    "uint64": "<u8", "int64": "<i8", "float32": "<f4", "float64": "<f8",
}  # fmt: skip
_KNOWN = {*_PARTS, *_PLAIN, *_floats.NARROW}
_THROUGH_32 = frozenset({"int8", "int16", "uint16", "int32"})

# Elements handled at a time: the temporaries (up to 8 bytes each) stay in the L2 cache.
_STEP = 1 << 15


def castable(source: DType, target: DType) -> bool:
    """Whether `cast` turns `source` into `target`.

    Bool, integers of 8 to 64 bits, floats of 8 to 64 bits and complex numbers are, each into each,
    but for complex into anything else: that would drop the imaginary part.
    """
    if source.name == target.name:
        return True
    if source.name not in _KNOWN or target.name not in _KNOWN:
        return False
    return source.name not in _PARTS or target.name in _PARTS


def cast(data: Buffer, source: DType, target: DType) -> memoryview:
    """The elements in `data`, contiguous and little-endian, as elements of `target`.

    Any whole number of elements; the result is `target.itemsize` times their number of bytes
    (format "B"). For equal dtypes it is `data` itself, not a copy. Memory beyond the result:
    under 2 MiB, and about 1 MiB of tables kept for as long as the process runs.

    Raises `BadArgument` for a pair that is not `castable` and for a last element cut short.
    """
    view = memoryview(data).cast("B")
    _check(len(view), source, target)
    if source.name == target.name:
        return view
    import numpy as np

    count = len(view) // source.itemsize
    result = np.empty(count * target.itemsize, np.uint8)
    with np.errstate(all="ignore"):
        for at in range(0, count, _STEP):
            end = min(at + _STEP, count)
            piece = np.frombuffer(view[at * source.itemsize : end * source.itemsize], np.uint8)
            room = result[at * target.itemsize : end * target.itemsize]
            _cast_step(piece, source.name, room, target.name)
    return result.data


def _check(length: int, source: DType, target: DType) -> None:
    if not castable(source, target):
        raise BadArgument(
            f"a cast from {source} to {target}",
            expected="bool, integer, float or complex elements, and nothing that drops a part",
            got=f"{source} elements",
            remedy="Leave these tensors as they are, or choose another dtype.",
        )
    if length % source.itemsize:
        raise BadArgument(
            f"a cast from {source} to {target}",
            expected=f"a multiple of {source.itemsize} bytes",
            got=f"{length} bytes",
            remedy="Give whole elements.",
        )


def _cast_step(piece: Array, source: str, room: Array, target: str) -> None:
    """Cast the bytes `piece` into the bytes `room`. A complex number is two floats in a row."""
    if source in _PARTS:
        _cast_step(piece, _PARTS[source], room, _PARTS[target])
        return
    codes = _encode(_decode(piece, source), source, _PARTS.get(target, target))
    if target not in _PARTS:
        room[:] = codes.view("|u1")
        return
    pairs = room.view(codes.dtype).reshape(-1, 2)
    pairs[:, 0] = codes
    pairs[:, 1] = 0


def _decode(piece: Array, name: str) -> Array:
    """The elements in `piece` as an integer, float32 or float64 array that holds them exactly."""
    if name in _floats.NARROW:
        return _floats.widen(piece.view("|u1" if name.startswith("float8") else "<u2"), name)
    values = piece.view(_PLAIN[name])
    # Any byte but 0 is true, also to torch; a file may hold others than 1.
    return (values != 0).view("|u1") if name == "bool" else values


def _encode(values: Array, source: str, target: str) -> Array:
    """`values`, decoded from `source`, as the array of elements, or of codes, of `target`."""
    if target in _floats.NARROW:
        nan = 0xFFFF if source in {"float32", "float64"} else 0x7FC0
        return _floats.narrow(values.astype("<f4", copy=False), target, nan)
    if target == "bool":
        truth: Array = values != 0
        return truth
    if values.dtype.kind != "f" or target.startswith("float"):
        return values.astype(_PLAIN[target], copy=False)
    if source in _floats.ONE_NAN:
        import numpy as np

        # There the NaN is a constant to torch's compiler, which makes it 0.
        values = values.copy()
        values[np.isnan(values)] = 0
    return _to_integers(values.astype("<f8", copy=False), target)


def _to_integers(values: Array, name: str) -> Array:
    """float64 values cut off to integers; the module's docstring says what out of range gives."""
    import numpy as np

    if name == "uint64":
        high = values >= 2.0**63
        signed = _truncate(np.where(high, values - 2.0**63, values), 63).view("<u8")
        signed ^= high.astype("<u8") << np.uint64(63)
        return signed
    return _truncate(values, 31 if name in _THROUGH_32 else 63).astype(_PLAIN[name])


def _truncate(values: Array, bits: int) -> Array:
    """Values as int64, and -2 ** `bits` for NaN and all that does not fit `bits` and a sign."""
    import numpy as np

    whole = np.trunc(values)
    fits = (whole >= -(2.0**bits)) & (whole < 2.0**bits)
    kept: Array = np.where(fits, whole, -(2.0**bits)).astype("<i8")
    return kept
