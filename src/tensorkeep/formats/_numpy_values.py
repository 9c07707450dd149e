"""numpy's dtypes, scalars and arrays, as their `__reduce__` writes them.

Sources: numpy 1.26 to 2.3, `numpy/_core/src/multiarray/methods.c` (`array_reduce`,
`array_reduce_ex_picklebuffer`, `array_setstate`) and `descriptor.c` (`arraydescr_reduce`).
"""

from __future__ import annotations

import struct
from math import prod

from tensorkeep.formats.contents import Inert, sizes
from tensorkeep.pickles import Call, Global

_NAMES = {
    "b1": "bool", "f2": "float16", "f4": "float32", "f8": "float64", "f16": "float128",
    "c8": "complex64", "c16": "complex128", "c32": "complex256", "O8": "object",
    **{f"i{size}": f"int{8 * size}" for size in (1, 2, 4, 8)},
    **{f"u{size}": f"uint{8 * size}" for size in (1, 2, 4, 8)},
}  # fmt: skip
_LAYOUTS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?", "c8": "ff", "c16": "dd",
}  # fmt: skip
_PARTS = (5, 6)


class Array(Inert):
    """An array that lies in the pickle: `code` as numpy writes it ("<f8"), `data` its bytes.

    `data` is None where the elements are objects. `fortran`: the first index moves fastest.
    """

    __slots__ = ("code", "data", "fortran", "shape")

    def __init__(
        self, code: str, shape: tuple[int, ...], data: bytes | None, *, fortran: bool
    ) -> None:
        super().__init__(f"array {dtype_name(code)} {list(shape)}")
        self.code = code
        self.shape = shape
        self.data = data
        self.fortran = fortran


def dtype_code(value: object) -> str:
    """The code of a `numpy.dtype` call with its byte order ("<f8", ">i4"); "" if it is none."""
    if not (isinstance(value, Call) and isinstance(value.func, Global)):
        return ""
    if value.func.qualified != "numpy.dtype" or not isinstance(value.args, tuple):
        return ""
    order = "|"
    for effect in value.effects or ():
        state = effect.args[0]
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            return ""
        order = str(state[1])
    first = value.args[0] if value.args else ""
    return order + first if isinstance(first, str) and first[:1] not in ("<", ">", "|") else ""


def dtype_name(code: str) -> str:
    """A code in words: "float64", "int32 (big-endian)", "text of 4"."""
    plain = code[1:]
    name = _NAMES.get(plain)
    if name is None:
        kinds = {
            "U": "text of",
            "S": "bytes of",
            "V": "records of",
            "M": "datetime",
            "m": "timedelta",
        }
        kind = kinds.get(plain[:1])
        return f"{kind} {plain[1:12]}" if kind and plain[1:].isdigit() else plain[:20] or "unknown"
    big = code.startswith(">") and not plain.endswith("1")
    return f"{name} (big-endian)" if big else name


def scalar(code: str, data: bytes) -> object:
    """The number that `data` is; None if that is not known."""
    layout = _LAYOUTS.get(code[1:])
    order = ">" if code.startswith(">") else "<"
    if layout is None or len(data) != struct.calcsize(order + layout):
        return None
    parts = struct.unpack(order + layout, data)
    return complex(*parts) if len(parts) == 2 else parts[0]


def array_of(call: Call, raw: object) -> object:
    """The array of `numpy._core.multiarray._reconstruct` and its state; None if it is odd.

    `raw` makes bytes of what protocols 0 to 2 write for them.
    """
    effects = call.effects or ()
    state = effects[0].args[0] if len(effects) == 1 and effects[0].kind == "BUILD" else None
    if not isinstance(state, tuple) or len(state) not in _PARTS:
        return None
    shape, dtype, fortran, data = state[-4:]
    return _array(dtype, shape, bool(fortran), raw(data) if callable(raw) else data)


def from_buffer(call: Call, raw: object) -> object:
    """The array of `numpy._core.numeric._frombuffer(bytes, dtype, shape, order)`: protocol 5."""
    if not isinstance(call.args, tuple) or len(call.args) < 4 or call.effects:
        return None
    data, dtype, shape, order = call.args[:4]
    return _array(dtype, shape, order == "F", raw(data) if callable(raw) else data)


def _array(dtype: object, shape: object, fortran: bool, data: object) -> Array | None:
    code = dtype_code(dtype)
    if not code or not isinstance(shape, tuple) or not sizes(shape) or min(shape, default=0) < 0:
        return None
    plain = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else None
    layout = _LAYOUTS.get(code[1:])
    if plain is not None and layout and len(plain) != prod(shape) * struct.calcsize("<" + layout):
        return None
    return Array(code, shape, plain, fortran=fortran)
