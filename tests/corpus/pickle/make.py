"""Pickles outside containers, and joblib's: python tests/corpus/pickle/make.py"""

from __future__ import annotations

import gzip
import io
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import joblib
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402

VALUES = {"epoch": 3, "loss": [0.5, 0.25], "note": "as it is", "raw": b"\0\1", "nothing": None}
ARRAYS = {
    "c": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
    "big_endian": np.arange(4, dtype=">i2"),
    "empty": np.zeros((0, 3), dtype="f4"),
    "number": np.array(1.5, dtype="f4"),
}
BITS = {
    name: np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    for name, array in ARRAYS.items()
}


def case(name, data, expected, suffix="pkl"):
    file = f"model.{suffix}"
    keep(HERE / name, lambda folder: (folder / file).write_bytes(data), expected, file)


def dumped(value, **options):
    file = io.BytesIO()
    joblib.dump(value, file, **options)
    return file.getvalue()


def main():
    for protocol in range(6):
        case(f"protocol_{protocol}", pickle.dumps(VALUES, protocol), {})
    case("stacked", pickle.dumps(VALUES) + pickle.dumps(OrderedDict(a=1)), {})
    case("gzip", gzip.compress(pickle.dumps(VALUES), mtime=0), {}, "pkl.gz")
    with_values = ARRAYS | {"n": 3, "text": np.array(["a", "bc"]), "any": np.array([1, None])}
    case("joblib", dumped(with_values), BITS, "joblib")
    for method in ("zlib", "bz2", "xz", "lzma"):
        case(f"joblib_{method}", dumped(ARRAYS, compress=(method, 3)), BITS, "joblib")


if __name__ == "__main__":
    main()
