"""Allowlisted names of numpy beyond plain arrays: subclasses, masks, texts, polynomials.

Sources: numpy 2.4 `_core/records.py`, `matrixlib/defmatrix.py`, `_core/defchararray.py`,
`ma/core.py`, `_core/_internal.py`, `polynomial/_polybase.py`, `lib/_polynomial_impl.py`: the
`__array_finalize__` and `__setstate__` of each class was read, and looks at shape and dtype only.
"""

from __future__ import annotations

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import EffectRule, Entry, KindOf, takes
from tensorkeep.scanning._allow_numpy import ARRAY_CLASSES, array_state, raw_bytes
from tensorkeep.scanning._allow_table import kind_of

_SUBCLASSES = (
    ("numpy", "matrix"),
    ("numpy.matrixlib.defmatrix", "matrix"),
    ("numpy", "recarray"),
    ("numpy.rec", "recarray"),
    ("numpy.core.records", "recarray"),
    ("numpy.char", "chararray"),
    ("numpy", "chararray"),
    ("numpy.core.defchararray", "chararray"),
)
_MASKED_CLASSES = (
    ("numpy.ma", "MaskedArray"),
    ("numpy.ma.core", "MaskedArray"),
    ("numpy.ma.core", "mvoid"),
)
_FILL = ("none", "bool", "int", "float", "str", "bytes", "number", "np-array")
_POLYNOMIALS = (
    "polynomial.Polynomial",
    "chebyshev.Chebyshev",
    "legendre.Legendre",
    "hermite.Hermite",
    "hermite_e.HermiteE",
    "laguerre.Laguerre",
)
# What an instance has itself: any other name would hide a method or an attribute of the class.
_POLYNOMIAL_STATE = {
    "coef": "np-array",
    "domain": "np-array",
    "window": "np-array",
    "symbol": "str",
    "_symbol": "str",
}
_POLY1D_STATE = {"coeffs": "np-array", "_variable": "str", "variable": "str", "order": "int"}


def _masked(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) != 4 or kind(args[0]) != "np-masked-class" or kind(args[1]) not in ARRAY_CLASSES:
        return False
    return args[2] == (0,) and kind(args[3]) in ("bytes", "str")


def _masked_state(target: Call, args: tuple[object, ...]) -> bool:
    # The state of an array, then the bytes of the mask and the value that fills.
    state = args[0] if len(args) == 1 else None
    if type(state) is not tuple or len(state) != 7 or not raw_bytes(state[5]):
        return False
    return array_state(target, (state[:5],)) and kind_of(state[6]) in _FILL


def _texts(args: tuple[object, ...], kind: KindOf) -> bool:
    # (coerce, what stands for no text): numpy compares the second with itself.
    if len(args) not in (1, 2) or args[0] not in (0, 1) or type(args[0]) not in (int, bool):
        return False
    return len(args) == 1 or kind(args[1]) in ("none", "float", "str")


def _holds(kinds: dict[str, str]) -> EffectRule:
    def rule(_: Call, args: tuple[object, ...]) -> bool:
        state = args[0] if len(args) == 1 else None
        if type(state) is not dict:
            return False
        return all(
            type(key) is str and key in kinds and kind_of(value) in (kinds[key], "none")
            for key, value in state.items()
        )

    return rule


def _polynomial(module: str, name: str, kinds: dict[str, str]) -> Entry:
    return Entry(
        module,
        name,
        "holds the coefficients of a polynomial",
        instance=True,
        reference="plain-class",
        rule=takes(),
        makes="polynomial",
        effects={"BUILD": _holds(kinds)},
    )


ENTRIES: tuple[Entry, ...] = (
    *(
        Entry(module, name, "is a class of arrays", reference="np-array-subclass")
        for module, name in _SUBCLASSES
    ),
    *(
        Entry(module, name, "is a class of arrays", reference="np-masked-class")
        for module, name in _MASKED_CLASSES
    ),
    Entry(
        "numpy.ma.core",
        "_mareconstruct",
        "makes an empty array with a mask, both filled with bytes of the file by BUILD",
        call=True,
        rule=_masked,
        makes="np-array",
        effects={"BUILD": _masked_state},
    ),
    Entry(
        "numpy.ma.core",
        "MaskedConstant",
        "returns the one constant `numpy.ma.masked`, which is read-only",
        call=True,
        reference="np-constant-class",
        rule=takes(),
        makes="np-constant",
        fresh=False,
    ),
    Entry(
        "numpy._core._internal",
        "_convert_to_stringdtype_kwargs",
        "makes the dtype of texts of any length",
        call=True,
        rule=_texts,
        makes="np-string-dtype",
    ),
    *(
        _polynomial(f"numpy.polynomial.{module}", name, _POLYNOMIAL_STATE)
        for module, _, name in (path.partition(".") for path in _POLYNOMIALS)
    ),
    _polynomial("numpy", "poly1d", _POLY1D_STATE),
)
