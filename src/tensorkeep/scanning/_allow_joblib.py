"""Allowlisted names of joblib: the arrays that it keeps beside a pickle's opcodes.

Source: `joblib/numpy_pickle.py` (1.6), `NumpyArrayWrapper` and `NumpyUnpickler.load_build`. Once
the wrapper has its state the unpickler calls its `read`, so a state may hold what joblib writes
and nothing else: an attribute called `read` would be called instead.
"""

from __future__ import annotations

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import Entry, takes, whole_numbers
from tensorkeep.scanning._allow_numpy import ARRAY_CLASSES, is_settled
from tensorkeep.scanning._allow_table import kind_of

_ALIGNMENTS = (None, 1, 2, 4, 8, 16, 32, 64)


def _state(_: Call, args: tuple[object, ...]) -> bool:
    state = args[0] if len(args) == 1 else None
    if type(state) is not dict:
        return False
    known = dict(state)
    alignment = known.pop("numpy_array_alignment_bytes", None)
    if known.keys() != {"subclass", "shape", "order", "dtype", "allow_mmap"}:
        return False
    dtype = known["dtype"]
    return (
        kind_of(known["subclass"]) in ARRAY_CLASSES
        and whole_numbers(known["shape"])
        and known["order"] in ("C", "F")
        and kind_of(dtype) in ("np-dtype", "np-string-dtype")
        and is_settled(dtype)
        and type(known["allow_mmap"]) is bool
        and alignment in _ALIGNMENTS
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        "joblib.numpy_pickle",
        "NumpyArrayWrapper",
        "stands for an array whose bytes follow in the stream; objects in it are a pickle, judged",
        instance=True,
        rule=takes(),
        makes="np-array",
        effects={"BUILD": _state},
    ),
)
