"""The arrays that joblib writes into the stream of a pickle.

Source: `joblib/numpy_pickle.py` (1.6; files of 0.10 on). An array is pickled as a
`NumpyArrayWrapper`; as soon as that has its state, the unpickler reads from the file, behind the
opcodes so far: a byte that counts padding, the padding (both since joblib 1.2), and the elements.
An array of objects is a whole pickle instead. Then the opcodes go on.
"""

from __future__ import annotations

from tensorkeep.errors import Damaged, Unsupported
from tensorkeep.facts import Limits
from tensorkeep.formats._arrays import (
    Element,
    KnownFirst,
    array_at,
    element_of_call,
    nbytes,
    shape_of,
)
from tensorkeep.formats._programs import run_text
from tensorkeep.formats.contents import Inert, Lens, Storage
from tensorkeep.pickles import Call, Global, Program
from tensorkeep.stores import Blob

_WRAPPERS = frozenset(
    f"{package}numpy_pickle.NumpyArrayWrapper"
    for package in ("joblib.", "sklearn.externals.joblib.", "sklearn.utils._joblib.")
)
_ALIGNMENT = "numpy_array_alignment_bytes"


class Arrays:
    """What the arrays in one stream take of it, and where they lie.

    `programs` are the pickles of arrays of objects; `storages` the bytes of the others.
    """

    def __init__(self, blob: Blob, data: bytes, limits: Limits) -> None:
        self.blob = blob
        self.storages: dict[str, Storage] = {}
        self.programs: list[tuple[str, Program]] = []
        self._data = data
        self._limits = limits
        self._known: dict[int, object] = {}
        self.first = len(data)  # where the first array begins, its padding included

    def lens(self, below: Lens) -> Lens:
        """`below`, with the arrays as tensors."""
        return KnownFirst(self._known, below)

    @property
    def found(self) -> bool:
        """Whether there is an array at all."""
        return self.first < len(self._data)

    def reads(self, call: Call, pos: int) -> int:
        """How far the object that `call` makes reads the stream from `pos`."""
        if not isinstance(call.func, Global) or call.func.qualified not in _WRAPPERS:
            return pos
        self.first = min(self.first, pos)
        state = _state(call)
        shape, element = shape_of(state.get("shape")), element_of_call(state.get("dtype"))
        if shape is None or element is None:
            raise Unsupported(
                self.blob.name,
                expected="an array's shape and type, as joblib writes them",
                got="others",
                where=f"byte {pos}",
            )
        if element.objects:
            return self._objects(call, pos)
        alignment = state.get(_ALIGNMENT)
        if alignment is not None:
            pos += 1 + self._byte(pos)
        return self._numbers(call, pos, element, shape, state.get("order") == "F")

    def _byte(self, pos: int) -> int:
        if pos >= len(self._data):
            raise self._short(pos)
        return self._data[pos]

    def _objects(self, call: Call, pos: int) -> int:
        where = f"array of objects at byte {pos}"
        program = run_text(self._data, pos, limits=self._limits, where=where)
        self.programs.append((where, program))
        self._known[id(call)] = Inert("array of objects", unread="object")
        if program.error is not None:
            raise program.error
        return max(program.end, program.frame_end)

    def _numbers(
        self, call: Call, pos: int, element: Element, shape: tuple[int, ...], fortran: bool
    ) -> int:
        end = pos + nbytes(element, shape)
        if end > len(self._data):
            raise self._short(pos)
        key = f"array at byte {pos}"
        value, storage = array_at(self.blob, key, pos, element, shape, fortran)
        self._known[id(call)] = value
        if storage is not None:
            self.storages[key] = storage
        return end

    def _short(self, pos: int) -> Damaged:
        got = f"{len(self._data)} bytes in all"
        return Damaged(self.blob.name, expected="an array's bytes", got=got, where=f"byte {pos}")


def _state(call: Call) -> dict[object, object]:
    """The attributes that the file gives the object, later ones over earlier."""
    merged: dict[object, object] = {}
    for effect in call.effects or ():
        state = effect.args[0] if effect.kind == "BUILD" else None
        merged |= state if isinstance(state, dict) else {}
    return merged
