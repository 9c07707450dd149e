"""Files and programs that lie in the bytes and texts of a pickle.

torch pickles a storage as `torch.storage._load_from_bytes(b"...")`: the bytes are a whole file of
torch's old format, which loading runs. Such bytes are files of their own (`Contents.nested`).
Bytes that nothing loads are data, whatever is in them; where they are a program that would call
more than an honest value needs, that is an anomaly.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable

from tensorkeep.errors import LimitExceeded, NotACheckpoint, ReadError, TensorkeepError
from tensorkeep.facts import Anomaly
from tensorkeep.formats._programs import plausible, run_text
from tensorkeep.formats._values import ENCODE, latin1
from tensorkeep.formats.contents import Contents, Parts, place_of
from tensorkeep.pickles import Call, Extension, Global, Import, Program
from tensorkeep.stores.memory import MemoryBlob

Nested = list[tuple[str, Contents]]
Unreadable = list[tuple[str, TensorkeepError]]

_TORCH = "torch.storage._load_from_bytes"
# What runs the pickle in the bytes that it is given; whoever calls them has the verdict already.
_LOADERS = frozenset(
    f"{module}.{name}"
    for module in ("pickle", "_pickle", "cPickle", "dill", "dill._dill", "cloudpickle", "joblib")
    for name in ("loads", "_loads", "load", "_load")
) | {"torch.load", "torch.serialization.load", "marshal.loads", _TORCH}
_DECODERS = frozenset({"base64.b64decode", "base64.decodebytes", "binascii.a2b_base64"})
_UNHEX = frozenset({"binascii.unhexlify", "binascii.a2b_hex", "base64.b16decode"})
_FILES = frozenset({"io.BytesIO", "_io.BytesIO"})
_PEELS = 8
_UNPACKED = 64 << 20


def collect(
    programs: Iterable[tuple[str, Program]],
    parts: Parts,
    anomalies: list[Anomaly],
    files: dict[bytes, Contents] | None = None,
) -> tuple[Nested, Unreadable]:
    """The files that calls in `programs` are given as bytes, and those that could not be read.

    Programs in bytes that no call loads are added to `anomalies`. `files` takes the files that
    torch would load, by their bytes.
    """
    nested: Nested = []
    unreadable: Unreadable = []
    for where, program in programs:
        loaded = _loaded(where, program, parts, nested, unreadable, files)
        anomalies += _hidden(where, program, loaded, parts)
    return nested, unreadable


def _loaded(
    where: str,
    program: Program,
    parts: Parts,
    nested: Nested,
    unreadable: Unreadable,
    files: dict[bytes, Contents] | None,
) -> set[bytes]:
    """Open what each loading call is given. The same bytes given twice are opened once."""
    seen: set[bytes] = set()
    for call in program.calls_of(lambda name: name.qualified in _LOADERS):
        data = _bytes(call.args[0]) if isinstance(call.args, tuple) and call.args else None
        if data is None or data in seen:
            continue
        seen.add(data)
        place = place_of(where, call.offset)
        torch = isinstance(call.func, Global) and call.func.qualified == _TORCH
        try:
            nested.append((place, parts.examine(MemoryBlob(data, place))))
            if files is not None and torch:
                files[data] = nested[-1][1]
        except NotACheckpoint as error:
            if torch:
                unreadable.append((place, error))
        except ReadError as error:
            unreadable.append((place, error))
            if isinstance(error, LimitExceeded):
                break  # each further one would say the same
    return seen


def _bytes(value: object) -> bytes | None:
    """Bytes as the program spells them: themselves, encoded text, base 64, packed, in a file."""
    for _ in range(_PEELS):
        plain = latin1(value)
        if plain is not None:
            return plain
        if not isinstance(value, Call) or not isinstance(value.func, Global):
            return None
        name, args = value.func.qualified, value.args
        if not isinstance(args, tuple) or not args:
            return None
        if name in _FILES:
            value = args[0]
        elif name in _DECODERS:
            return _decoded(args[0])
        elif name in _UNHEX:
            return _unhexed(args[0])
        elif name == "zlib.decompress":
            return _inflated(latin1(args[0]))
        else:
            return None
    return None


def _decoded(text: object) -> bytes | None:
    """What base 64 says, or None if it is none."""
    if not isinstance(text, str | bytes):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _unhexed(text: object) -> bytes | None:
    try:
        return binascii.unhexlify(text) if isinstance(text, str | bytes) else None
    except (binascii.Error, ValueError):
        return None


def _inflated(data: bytes | None) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, _UNPACKED) if data else None
    except zlib.error:
        return None


def _hidden(where: str, program: Program, loaded: set[bytes], parts: Parts) -> Iterable[Anomaly]:
    """Programs in the constants of `program` that nothing in it loads."""
    for at, constant in [*program.constants, *_encoded(program)]:
        plain = constant if isinstance(constant, bytes) else None
        for data in (plain, _decoded(constant), _unhexed(constant)):
            if data and data not in loaded and _calls_more(data, parts):
                what = (
                    f"{len(data)} bytes that are a pickle, which would call more than values need"
                )
                yield Anomaly("nested-pickle", what, where, at)
                return


def _encoded(program: Program) -> Iterable[tuple[int, bytes]]:
    """Bytes as protocols 0 to 2 spell them; a text that the memo names again is encoded once."""
    seen: set[int] = set()
    for call in program.calls_of(lambda name: name.qualified == ENCODE):
        text = call.args[0] if isinstance(call.args, tuple) and call.args else None
        if id(text) in seen:
            continue
        seen.add(id(text))
        data = latin1(call)
        if data is not None:
            yield call.offset, data


def _calls_more(data: bytes, parts: Parts) -> bool:
    """Whether bytes are a program that imports something beyond what plain values are made of.

    What lies in the bytes of that program is looked at in turn: each level is shorter.
    """
    todo = [data]
    for _ in range(_PEELS):
        inner: list[bytes] = []
        for piece in todo:
            program = run_text(piece, limits=parts.limits)
            if not (piece[0] == 0x80 or plausible(program)):
                continue
            if any(not is_plain(event) for event in program.trace if type(event) is Import):
                return True
            inner += [text for _, text in program.constants if isinstance(text, bytes)]
        todo = inner
    return any(piece[:1] == b"\x80" for piece in todo)  # nobody packs values so often


_PLAIN = {
    "builtins": "set frozenset bytearray bytes complex slice range list dict tuple object int "
    "float str bool",
    "collections": "OrderedDict defaultdict Counter deque",
    "_codecs": "encode",
    "copyreg": "_reconstructor __newobj__",
    "datetime": "datetime date time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "pathlib": "PosixPath PurePosixPath WindowsPath PureWindowsPath Path",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "torch": "Size device dtype",
    "torch.storage": "_load_from_bytes UntypedStorage",
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter",
}
_PLAIN_NAMES = frozenset(f"{m}.{name}" for m, names in _PLAIN.items() for name in names.split())


def is_plain(event: Import) -> bool:
    """Whether plain values and tensors are made of what an event imports."""
    target = event.target
    if isinstance(target, Extension):
        return False
    storage = target.module == "torch" and target.name.endswith("Storage")
    return target.qualified in _PLAIN_NAMES or (storage and "." not in target.name)
