"""numpy's .npy: a header and one array; several of them one after another, as `np.save` appends.

Source: numpy's `lib/format.py` (2.4; versions 1.0 to 3.0 of the format). An array of objects is a
pickle behind the header: a program. An .npz is a zip of such files.
"""

from __future__ import annotations

import struct
from math import prod

from tensorkeep.errors import Damaged, LimitExceeded, TensorkeepError, Unsupported
from tensorkeep.facts import Anomaly, Limits, MiB
from tensorkeep.formats import _nested, _npy_header
from tensorkeep.formats._arrays import array_at, element_of, shape_of
from tensorkeep.formats._programs import Stream, imports
from tensorkeep.formats._tensors import Interpreter
from tensorkeep.formats.contents import Contents, Inert, Parts, Storage, plain
from tensorkeep.pickles import Persistent, Program
from tensorkeep.stores import Blob
from tensorkeep.stores.slices import SliceBlob

NAME = "npy"
SUFFIXES: tuple[str, ...] = (".npy",)
_MAGIC = b"\x93NUMPY"
_LONGEST = MiB  # of a header
_MOST = 100_000  # arrays in one file
_KEYS = {"descr", "fortran_order", "shape"}


def identify(blob: Blob, head: bytes) -> bool:
    """By numpy's magic."""
    return head.startswith(_MAGIC)


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The arrays in `blob`, without their bytes."""
    reading = _Reading(blob, limits)
    at = 0
    while True:
        at = reading.array(at)
        if not reading.another(at):
            break
    anomalies = reading.anomalies
    if reading.error is None and at < blob.size:
        what = f"{blob.size - at} bytes behind the last array"
        anomalies.append(Anomaly("trailing-bytes", what, "", at))
    nested, unreadable = _nested.collect(reading.programs, parts, anomalies)
    root: object = {"array": reading.arrays[0]} if len(reading.arrays) == 1 else reading.arrays
    return Contents(
        format=NAME,
        container="npy",
        root=root,
        lens=reading.lens or plain,
        storages=reading.storages,
        programs=reading.programs,
        anomalies=anomalies,
        error=reading.error,
        nested=nested,
        unreadable=unreadable,
    )


def _no_storage(_persistent: Persistent) -> None:
    """numpy gives its pickles no persistent ids."""


class _Reading:
    """One file on its way, array by array."""

    def __init__(self, blob: Blob, limits: Limits) -> None:
        self.blob = blob
        self.limits = limits
        self.arrays: list[object] = []
        self.storages: dict[str, Storage] = {}
        self.programs: list[tuple[str, Program]] = []
        self.anomalies: list[Anomaly] = []
        self.lens: Interpreter | None = None
        self.error: TensorkeepError | None = None

    def another(self, at: int) -> bool:
        """Whether one more array begins at byte `at`."""
        if self.error is not None or at + len(_MAGIC) > self.blob.size:
            return False
        if len(self.arrays) >= _MOST:
            expected = f"at most {_MOST} arrays in one file"
            self.error = LimitExceeded(self.blob.name, expected=expected, got="more")
            return False
        return self.blob.read(at, len(_MAGIC)) == _MAGIC

    def array(self, at: int) -> int:
        """Read the header at byte `at`; where the array's bytes end."""
        header, start = self._header(at)
        descr, shape = header["descr"], shape_of(header["shape"])
        fortran = header["fortran_order"]
        if shape is None or type(fortran) is not bool:
            raise self._odd("a shape of whole numbers and an order", at)
        if _has_objects(descr):
            return self._pickle(start)
        row = _row(descr)
        if row is None:
            return self._unknown(start)
        end = start + prod(shape) * row
        if end > self.blob.size:
            raise Damaged(
                self.blob.name,
                expected=f"an array of {end - start} bytes",
                got=f"{self.blob.size - start}",
                where=f"byte {start}",
            )
        self._place(descr, start, shape, fortran)
        return end

    def _place(self, descr: object, start: int, shape: tuple[int, ...], fortran: bool) -> None:
        element = element_of(descr) if isinstance(descr, str) else None
        if element is None:
            self.arrays.append(Inert("numpy array of records"))
            return
        key = f"array at byte {start}"
        value, storage = array_at(self.blob, key, start, element, shape, fortran)
        self.arrays.append(value)
        if storage is not None:
            self.storages[key] = storage

    def _header(self, at: int) -> tuple[dict[object, object], int]:
        start = self.blob.read(at, min(12, self.blob.size - at))
        major = start[6] if len(start) > 9 else 0
        if major == 1:
            (length,), at = struct.unpack("<H", start[8:10]), at + 10
        elif major in (2, 3) and len(start) == 12:
            (length,), at = struct.unpack("<I", start[8:12]), at + 12
        else:
            raise self._odd("version 1, 2 or 3 of the format", at)
        if length > _LONGEST:
            expected = f"a header of at most {_LONGEST} bytes"
            raise LimitExceeded(self.blob.name, expected=expected, got=length)
        if length > self.blob.size - at:
            raise self._odd(f"a header of {length} bytes", at)
        text = self.blob.read(at, length).decode("utf-8" if major == 3 else "latin-1", "replace")
        header = _npy_header.parse(text, self.blob.name)
        if header.keys() != _KEYS:
            raise self._odd("descr, fortran_order and shape", at)
        return header, at + length

    def _pickle(self, start: int) -> int:
        """An array of objects: a pickle instead of bytes."""
        where = f"pickle at byte {start}"
        program = self._run(start)
        self.programs.append((where, program))
        self.arrays.append(program.value)
        self.lens = Interpreter(program, _no_storage, self.anomalies)
        self.error = program.error
        return start + program.end

    def _unknown(self, start: int) -> int:
        """Elements that only numpy could tell. They may be objects: then a pickle follows."""
        program = self._run(start)
        if imports(program):
            return self._pickle(start)
        expected = "elements of plain numbers, text, or records of them"
        self.error = Unsupported(self.blob.name, expected=expected, got="another type")
        return start

    def _run(self, start: int) -> Program:
        where = f"pickle at byte {start}"
        rest = SliceBlob(self.blob, start, self.blob.size - start, where)
        return Stream(rest, self.limits).run(0, where)

    def _odd(self, expected: str, at: int) -> Damaged:
        where = f"byte {at}"
        return Damaged(self.blob.name, expected=expected, got="something else", where=where)


def _has_objects(descr: object) -> bool:
    """Whether a type is one of objects, or has a field of them."""
    if isinstance(descr, str):
        element = element_of(descr)
        return element is not None and element.objects
    if isinstance(descr, list | tuple):
        return any(_has_objects(part) for part in descr)
    return False


def _row(descr: object, depth: int = 0) -> int | None:
    """Bytes of one element, a record's fields summed; None for what is not understood."""
    if isinstance(descr, str):
        element = element_of(descr)
        return element.itemsize if element else None
    if not isinstance(descr, list) or depth > 8:
        return None
    total = 0
    for field in descr:
        if not isinstance(field, tuple) or len(field) not in (2, 3):
            return None
        size, shape = _row(field[1], depth + 1), shape_of(field[2] if len(field) == 3 else ())
        if size is None or shape is None:
            return None
        total += size * prod(shape)
    return total
