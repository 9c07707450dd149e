"""More plain values: iterators, wrappers, exceptions, records, numpy's subclasses and texts."""

from __future__ import annotations

import collections
import decimal
import difflib
import gzip
import pickle
import string
import time
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from writing import Case, Make, pickled, torch_zip

PROTOCOLS = range(6)
FIELDS = [("a", "i4"), ("b", "f8")]


def begun(values: Any) -> Any:
    """An iterator that has given its first value."""
    walked = iter(values)
    next(walked)
    return walked


def iterators() -> list[Any]:
    return [
        iter([1, 2]), iter((1, "a")), iter({1: 2}), iter({1, 2}), iter("ab"), iter(range(3)),
        iter(range(2**70)), iter(b"ab"), iter(bytearray(b"ab")), iter({1: 2}.items()),
        iter(collections.OrderedDict(a=1)), iter(np.arange(3)), begun([1, 2]), begun((1, 2)),
        begun("ab"), begun(range(4)), begun(b"ab"), iter([]), reversed([1, 2]), reversed("ab"),
        enumerate([1, 2]), enumerate("ab", 3), zip([1], "a", strict=False), zip(),
        begun(zip([1, 2], [3, 4], strict=True)),
    ]  # fmt: skip


def wrappers() -> list[Any]:
    counted = collections.Counter("aab")
    return [
        collections.ChainMap({1: 2}, {}), collections.ChainMap(counted), object(),
        collections.UserDict(a=1), collections.UserList([1, [2]]), collections.UserString("a"),
        string.Template("$a"),
    ]  # fmt: skip


def slices() -> list[Any]:
    return [
        slice((1, 2), None), slice((1, (2, "a")), (3,), 1), slice("a", "b"), slice(0.5, None),
        slice(np.int64(1), np.int64(4)), slice(b"a", True),
    ]  # fmt: skip


def exceptions() -> list[Any]:
    return [
        ValueError("x"), OSError(2, "no such file", "f"), KeyError("a"), StopIteration(1),
        ImportError("a", name="b", path="c"), AttributeError("a"), KeyboardInterrupt(),
        UserWarning("w"), RuntimeError("a", (1, b"b")), TypeError, Exception,
    ]  # fmt: skip


def records() -> list[Any]:
    return [
        time.gmtime(0), decimal.Decimal("1.5").as_tuple(), difflib.Match(1, 2, 3),
        urllib.parse.urlparse("http://a/b"), urllib.parse.urlsplit("http://a/b"),
        decimal.Context(), decimal.Context(prec=5, traps=[decimal.Inexact]), decimal.Overflow,
    ]  # fmt: skip


def numpy_classes() -> list[Any]:
    return [np.dtype, np.recarray, np.matrix, np.record, np.inexact, np.ma.MaskedArray]


def record_arrays() -> list[Any]:
    made = np.array([(1, 2.0)], dtype=FIELDS)
    nested = np.dtype([("p", np.dtype((np.record, FIELDS))), ("q", "f4", (2,))])
    return [
        made.view(np.recarray), made.view(np.recarray)[0], np.zeros(2, nested),
        np.rec.array([(1, "a")], dtype=[("x", "i8"), ("y", "U3")]),
        np.dtype((np.record, FIELDS)), np.zeros(2, np.dtype((np.record, FIELDS))),
    ]  # fmt: skip


def array_classes() -> list[Any]:
    return [
        np.matrix([[1, 2], [3, 4]]), np.asfortranarray(np.matrix([[1.0, 2], [3, 4]])),
        np.char.array(["a", "bc"]), np.matrix(["a"], dtype=object), np.ones(3).view(np.recarray),
    ]  # fmt: skip


def masked() -> list[Any]:
    made = np.ma.array([(1, 2.0)], dtype=FIELDS, mask=[(False, True)])
    return [
        np.ma.masked, np.ma.array([1, 2]), made, made[0],
        np.ma.array(np.matrix([[1, 2]]), mask=[[True, False]]),
    ]  # fmt: skip


def texts() -> np.ndarray[Any, Any]:
    return np.array(["a", "b" * 300, ""], dtype=np.dtypes.StringDType())


def text_arrays() -> list[Any]:
    kinds = np.dtypes.StringDType
    return [
        texts(), np.array(["a", np.nan], dtype=kinds(na_object=np.nan)), kinds(coerce=False),
        np.array([["a", None]], dtype=kinds(na_object=None)), np.zeros(0, kinds()),
        np.array(["a"], dtype=kinds(na_object="none")),
    ]  # fmt: skip


def polynomials() -> list[Any]:
    classes = ("Polynomial", "Chebyshev", "Legendre", "Hermite", "HermiteE", "Laguerre")
    return [
        *(getattr(np.polynomial, name)([1, 2.0], symbol="t") for name in classes),
        np.poly1d([1, 2]),
    ]


def before_numpy_1() -> bytes:
    """An array of objects as numpy wrote it in 2006, and one of numbers without its version."""
    empty = b"cnumpy.core._internal\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    objects = (
        b"cnumpy\ndtype\n(U\x02O4K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    )
    return b"\x80\x02" + empty + b"(K\x01K\x02\x85" + objects + b"\x89](K\x01U\x01aetb."


def old_objects(folder: Path) -> Path:
    path = folder / "old.pkl"
    path.write_bytes(before_numpy_1())
    return path


def with_text(write: Any, name: str) -> Case:
    def case(folder: Path) -> Path:
        path = folder / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy advises against some of its own classes
            write(path)
        return path

    return case


TREES = np.dtype([("node", FIELDS, (2,)), ("scale", "f4", (2, 3)), ("root", FIELDS)])


def packed(path: Path) -> None:
    path.write_bytes(gzip.compress(pickle.dumps(text_arrays())))


VALUES: dict[str, Make] = {
    "iterators": iterators,
    "wrappers": wrappers,
    "slices": slices,
    "exceptions": exceptions,
    "records": records,
    "numpy-classes": numpy_classes,
    "numpy-records": record_arrays,
    "numpy-subclasses": array_classes,
    "numpy-masks": masked,
    "numpy-texts": text_arrays,
    "numpy-polynomials": polynomials,
}

CASES: dict[str, Case] = {
    **{f"plain/{name}-zip": torch_zip(make) for name, make in VALUES.items()},
    **{
        f"plain/{name}-protocol-{n}": pickled(make, n)
        for name, make in VALUES.items()
        for n in PROTOCOLS
    },
    "plain/numpy-before-1.0": old_objects,
    "numpy/texts.npy": with_text(lambda path: np.save(path, texts()), "texts.npy"),
    "numpy/texts.npz": with_text(lambda path: np.savez(path, a=texts()), "texts.npz"),
    "numpy/texts.pkl.gz": with_text(packed, "texts.pkl.gz"),
    **{
        f"joblib/{name}": with_text(lambda path, make=make: joblib.dump(make(), path), "v.joblib")
        for name, make in {
            "texts": text_arrays,
            "subclasses": array_classes,
            "records": record_arrays,
            "masks": masked,
            "trees": lambda: {"nodes": np.zeros(3, TREES), "after": np.arange(3.0)},
        }.items()
    },
}


def unread_time_zone() -> Any:
    import zoneinfo

    return zoneinfo.ZoneInfo("UTC")


ODD: dict[str, tuple[Case, set[str]]] = {
    # Making one reads a file of the system or of a package.
    "odd/time-zone": (
        torch_zip(unread_time_zone),
        {"pickle/unknown-import", "pickle/attribute-lookup", "pickle/call-of-value"},
    ),
    # Printed with a position of the file's choice it reads memory anywhere.
    "odd/text-error": (
        pickled(lambda: UnicodeDecodeError("utf8", b"a", 0, 1, "r")),
        {"pickle/unknown-call"},
    ),
}
