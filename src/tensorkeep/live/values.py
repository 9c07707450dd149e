"""Values that are no tensors: what the file calls by name, as Python, numpy and torch have it.

Nothing is looked up by a name that the file gives, save in the tables here: of the standard
library's plain classes, and of torch's dtypes and their like.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping

import torch

from tensorkeep.formats._numpy_values import Array, dtype_code
from tensorkeep.formats._values import latin1
from tensorkeep.formats.contents import Inert
from tensorkeep.pickles import Call, Global

ATOMS = frozenset({str, int, float, bool, bytes, complex, type(None)})
_HASHED: tuple[type, ...] = (
    *(str, int, float, bytes, complex, type(None), type(...), Inert, torch.Tensor),
    *(torch.device, torch.dtype, torch.layout, torch.memory_format),
)
# Hashing a key costs as much as it is large written out, and a few bytes can write a lot.
_MOST_IN_KEY = 1_000
_PLAIN: tuple[type, ...] = (
    *(list, dict, set, frozenset, tuple, int, float, bool, str, bytes, complex),
)
_TYPES: Mapping[str, Callable[[], object]] = {
    **{f"builtins.{kind.__name__}": kind for kind in _PLAIN},
    "collections.OrderedDict": collections.OrderedDict,
}
_CONSTANTS: dict[str, object] = {
    **_TYPES,
    "builtins.Ellipsis": ...,
    "builtins.NotImplemented": NotImplemented,
}
_OF_TORCH = (torch.dtype, torch.layout, torch.memory_format, torch.qscheme)


def _size(items: list[object]) -> object:
    return torch.Size(items) if all(type(item) is int for item in items) else tuple(items)  # type: ignore[arg-type]


SEQUENCES: dict[str, Callable[[list[object]], object]] = {
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.tuple": tuple,
    "collections.deque": collections.deque,
    "torch.Size": _size,
}


def called(raw: object) -> str:
    """The name of the function or class that the file calls, or ""."""
    func = raw.func if isinstance(raw, Call) else None
    return func.qualified if isinstance(func, Global) and not func.computed else ""


def mapping(raw: object, type_: str) -> dict[object, object]:
    """An empty mapping of the class that the file names."""
    if type_ == "collections.defaultdict":
        return collections.defaultdict(_factory(raw))
    if type_ == "collections.Counter":
        return collections.Counter()  # type: ignore[return-value]
    return collections.OrderedDict() if type_ == "collections.OrderedDict" else {}


def _factory(raw: object) -> Callable[[], object] | None:
    """What a defaultdict fills its gaps with: a class of Python's own, or nothing."""
    args = raw.args if isinstance(raw, Call) else None
    first = args[0] if isinstance(args, tuple) and args else None
    return _TYPES.get(first.qualified) if isinstance(first, Global) else None


def leaf(raw: object, value: object) -> object:
    """What stands for a value without parts; `value` itself where nothing better is known."""
    if isinstance(value, Array):
        old = called(raw).endswith("_reconstruct")
        # A subclass (a matrix, say) would compute something else with the same numbers.
        return value if old and not _is_plain(raw) else _array(value, native=old)
    if isinstance(raw, Global) and not raw.computed:
        known = _CONSTANTS.get(raw.qualified, value)
        return _of_torch(raw.name, known) if raw.module == "torch" else known
    build = _CALLS.get(called(raw)) if isinstance(raw, Call) and raw.kind == "REDUCE" else None
    if build is not None and isinstance(raw, Call) and isinstance(raw.args, tuple):
        return build(raw.args, value)
    return value


def _of_torch(name: str, value: object) -> object:
    # Not getattr: torch imports some of its modules when they are asked for.
    found = vars(torch).get(name)
    return found if isinstance(found, _OF_TORCH) else value


def _device(_args: tuple[object, ...], value: object) -> object:
    try:
        return torch.device(value) if isinstance(value, str) else value
    except RuntimeError:
        return value  # of a kind that this version of torch does not have


def _layout(args: tuple[object, ...], value: object) -> object:
    name = args[0] if args else None
    return _of_torch(name.removeprefix("torch."), value) if isinstance(name, str) else value


def _bytearray(args: tuple[object, ...], value: object) -> object:
    data = latin1(args[0]) if args else b""
    return value if data is None else bytearray(data)


def _span(kind: type[slice] | type[range]) -> Callable[[tuple[object, ...], object], object]:
    def build(args: tuple[object, ...], value: object) -> object:
        whole = 1 <= len(args) <= 3 and all(type(arg) is int for arg in args if arg is not None)
        if not whole or (kind is range and (None in args or args[2:] == (0,))):
            return value
        return kind(*args)  # type: ignore[call-overload]

    return build


def _scalar(args: tuple[object, ...], value: object) -> object:
    """One number, which the reader has as Python's."""
    import numpy as np

    code = dtype_code(args[0]) if args else ""
    return np.dtype(code).type(value) if code and not isinstance(value, Inert) else value


_CALLS: dict[str, Callable[[tuple[object, ...], object], object]] = {
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "builtins.bytearray": _bytearray,
    "builtins.slice": _span(slice),
    "builtins.range": _span(range),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}


def _is_plain(raw: object) -> bool:
    args = raw.args if isinstance(raw, Call) else None
    kind = args[0] if isinstance(args, tuple) and args else None
    return isinstance(kind, Global) and kind.qualified == "numpy.ndarray"


def _array(array: Array, *, native: bool) -> object:
    """numpy's array; `native`: in this machine's byte order, as an older pickle's would be."""
    import numpy as np

    if array.data is None or array.code[1:2] not in tuple("biufcSU"):
        return array
    try:
        flat = np.frombuffer(array.data, dtype=array.code)
        made = flat.reshape(array.shape, order="F" if array.fortran else "C")
    except (TypeError, ValueError):
        return array
    return made.astype(made.dtype.newbyteorder("=") if native else made.dtype, order="K")


def can_be_key(value: object) -> bool:
    """Whether it hashes, at a bounded cost."""
    todo, left = [value], _MOST_IN_KEY
    while todo and left:
        left -= 1
        item = todo.pop()
        if isinstance(item, tuple | frozenset):
            todo.extend(item)
            left -= len(item)
        elif not isinstance(item, _HASHED):
            return False
    return not todo
