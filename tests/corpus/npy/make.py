"""Arrays as numpy saves them: python tests/corpus/npy/make.py"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402


def saved(*arrays):
    file = io.BytesIO()
    for array in arrays:
        np.save(file, array)
    return file.getvalue()


def bits(array):
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()


def case(name, data, expected, suffix="npy"):
    file = f"model.{suffix}"
    keep(HERE / name, lambda folder: (folder / file).write_bytes(data), expected, file)


def main():
    floats = np.arange(6.0).reshape(2, 3)
    for name, array in {
        "floats": floats,
        "fortran": np.asfortranarray(floats),
        "big_endian": floats.astype(">f4"),
        "complex": (floats * 1j).astype("c8"),
        "bools": floats > 2,
        "number": np.array(3, dtype="i2"),
        "empty": np.zeros((0, 4), dtype="u1"),
    }.items():
        case(name, saved(array), {"array": bits(array)})
    case("several", saved(floats, floats[0]), {"0": bits(floats), "1": bits(floats[0])})
    records = np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4", (2,))])
    case("records", saved(records), {})
    case("objects", saved(np.array([1, "a", None], dtype=object)), {})
    file = io.BytesIO()
    np.savez(file, weight=floats, bias=floats[0])
    case("npz", file.getvalue(), {"weight": bits(floats), "bias": bits(floats[0])}, "npz")
    file = io.BytesIO()
    np.savez_compressed(file, weight=floats)
    case("npz_compressed", file.getvalue(), {"weight": bits(floats)}, "npz")


if __name__ == "__main__":
    main()
