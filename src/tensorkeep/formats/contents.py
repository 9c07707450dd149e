"""What a format hands up: tensors as places, everything else as inert values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Protocol

from tensorkeep.dtypes import DType
from tensorkeep.errors import Damaged, TensorkeepError
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.pickles import Program, describe
from tensorkeep.stores import Blob


class Storage:
    """A run of bytes that tensors are views of.

    `nbytes` is what the file says it is long. Where it begins is asked of the container only
    when its bytes are wanted: in a zip that costs one small read per storage.
    `swapped` is the element size in bytes when the bytes are big-endian, else 0.
    """

    __slots__ = ("_locate", "_offset", "blob", "device", "key", "nbytes", "swapped")

    def __init__(
        self,
        key: str,
        nbytes: int,
        blob: Blob,
        offset: int | None = None,
        *,
        locate: Callable[[], int] | None = None,
        swapped: int = 0,
        device: str = "cpu",
    ) -> None:
        self.key = key
        self.nbytes = nbytes
        self.blob = blob
        self.swapped = swapped
        self.device = device
        self._offset = offset
        self._locate = locate

    @property
    def offset(self) -> int:
        """Position of the first byte in `blob`. Raises `Damaged` if the container has none."""
        if self._offset is None:
            assert self._locate is not None
            self._offset = self._locate()
        return self._offset

    def under(self, key: str) -> Storage:
        """The same bytes under another key."""
        return Storage(
            key,
            self.nbytes,
            self.blob,
            locate=lambda: self.offset,
            swapped=self.swapped,
            device=self.device,
        )

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `start` of this storage, as the bytes lie in the file."""
        self.blob.read_into(self.offset + start, buffer)

    def require(self) -> None:
        """Raise `Damaged` unless all of its bytes lie in the file."""
        if self.nbytes and self.offset + self.nbytes > self.blob.size:
            raise Damaged(
                self.blob.name,
                expected=f"bytes up to {self.offset + self.nbytes}",
                got=f"a file of {self.blob.size} bytes",
                where=f"storage {self.key}",
            )


class TensorRecord:
    """A tensor as its file describes it: a view of a storage; offset and stride in elements.

    `conj` and `neg` are torch's lazy bits: the values are the conjugate, or the negative, of
    what the bytes say. `problem` says why its bytes may not be read (it reaches beyond its storage,
    say); reading such a tensor raises `Damaged`.
    """

    __slots__ = (
        "conj",
        "dtype",
        "neg",
        "offset",
        "parameter",
        "problem",
        "requires_grad",
        "shape",
        "storage",
        "stride",
    )

    def __init__(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        offset: int,
        storage: Storage,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.stride = stride
        self.offset = offset
        self.storage = storage
        self.requires_grad = False
        self.parameter = False
        self.conj = False
        self.neg = False
        self.problem = ""

    @property
    def numel(self) -> int:
        """How many elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return prod(self.shape) * self.dtype.itemsize

    def span(self) -> tuple[int, int]:
        """First byte touched within the storage, and one more than the last; (0, 0) if empty."""
        end = reach(self.shape, self.stride, self.offset)
        return (self.offset * self.dtype.itemsize, end * self.dtype.itemsize) if end else (0, 0)

    def check(self, name: str) -> None:
        """Raise `Damaged` if its bytes may not be read."""
        if self.problem:
            raise Damaged(f"tensor {name!r}", got=self.problem, where=f"storage {self.storage.key}")


class Items:
    """A mapping that the file builds by calling a known class (an OrderedDict, a Counter)."""

    __slots__ = ("attributes", "pairs", "type")

    def __init__(self, type_: str, pairs: list[tuple[object, object]]) -> None:
        self.type = type_
        self.pairs = pairs
        self.attributes: dict[str, object] = {}


class Graft:
    """A value that another file of the same checkpoint holds."""

    __slots__ = ("contents",)

    def __init__(self, contents: Contents) -> None:
        self.contents = contents


class Inert:
    """Something that the file would build by running code, or that nothing here reads yet.

    `why` is a few words for people ("sparse tensor", "object of class pkg.Model"). `unread`
    says whether values are lost with it: "tensor" if it is one that this version cannot read,
    "object" if tensors lie somewhere inside, else "".
    """

    __slots__ = ("node", "unread", "why")

    def __init__(self, why: str, node: object = None, *, unread: str = "") -> None:
        self.why = why
        self.node = node
        self.unread = unread

    def __repr__(self) -> str:
        return f"<{self.why}>" if self.node is None else describe(self.node)


# As many as numpy and torch's own kernels take; a size that a million tensors share costs
# a million times its length.
MAX_DIMENSIONS = 64
_WORD = 1 << 63
_INTS = {int}
_SEQUENCES = (list, tuple)

Lens = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Code:
    """Code that a container carries and that is no pickle.

    `language`: "python", "torchscript", "exported" (one request of a graph a line: its kind, and
    the text as JSON) or "native" (compiled; `text` is empty).
    """

    where: str
    language: str
    text: str


@dataclass(slots=True)
class Contents:
    """Everything that a format found out without reading tensor bytes.

    `root` is the value that the file holds. Walk it through `lens`, which turns a raw value
    into an atom, a list, tuple or dict, `Items`, a `TensorRecord` or `Inert`.
    `programs` are the pickles that a loader would run, by their place in the container.
    `audit(deep)` reads what a loader could execute beyond `programs` and yields what is odd.
    `digests` says whether the container carries checksums of the tensor bytes. `aliases` are
    the names in `root` that the container gives as further names of a tensor it holds once.
    `error`: why `root` could not be read to its end; the programs say what ran until then.

    `nested`: whole files that lie inside (a member of an archive, bytes that a pickle hands to
    torch.load), each by its place: they are judged as files of their own. `unreadable`: those that
    could not be read, and why. `code` yields the programs in text that are carried along.
    `dialect` says who would run `programs`: "python" (pickle or torch.load), "torchscript" (the
    C++ unpickler of torch.jit) or "package" (torch.package's importer). `own` are the qualified
    names that the container itself defines: they are looked up in it and imported from nowhere.
    `pending` says that a loader would run programs which only `audit` reads, into `nested`.
    """

    format: str
    container: str
    root: object
    lens: Lens
    storages: Mapping[str, Storage]
    metadata: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    programs: list[tuple[str, Program]] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    audit: Callable[[bool], Iterable[Anomaly]] = lambda _deep: ()
    verify: Callable[[], Iterator[tuple[str, str, str, str]]] = lambda: iter(())
    digests: bool = False
    aliases: frozenset[str] = frozenset()
    error: TensorkeepError | None = None
    nested: list[tuple[str, Contents]] = field(default_factory=list)
    unreadable: list[tuple[str, TensorkeepError]] = field(default_factory=list)
    code: Callable[[], Iterable[Code]] = lambda: ()
    dialect: str = "python"
    own: frozenset[str] = frozenset()
    pending: bool = False


class Parts(Protocol):
    """Opens files inside a file. A format is given one, as formats do not know each other."""

    limits: Limits

    def examine(self, blob: Blob) -> Contents:
        """What `blob` holds, `Contents.error` included. Raises `ReadError`.

        Raises `LimitExceeded` when files lie in files deeper, or altogether larger, than the
        limits allow.
        """

    def spend(self, size: int, name: str) -> None:
        """Count `size` bytes that the part `name` was unpacked to, or is read again as.

        Raises `LimitExceeded` when that is more in all than the size of the whole allows: a
        thousand members may each be small enough.
        """

    def recognises(self, blob: Blob) -> bool:
        """Whether its bytes announce a format that could be examined."""


def place_of(where: str, offset: int) -> str:
    """The name in `nested` of the bytes that the call at `offset` of a program opens as a file."""
    return f"{where}, bytes of the call at byte {offset}".removeprefix(", ")


def plain(value: object) -> object:
    """The lens of formats whose values are plain already."""
    return value


def reach(record_shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> int:
    """One more than the last element touched; 0 for an empty tensor."""
    last = offset
    for size, step in zip(record_shape, stride, strict=True):
        if size == 0:
            return 0
        last += (size - 1) * step
    return last + 1


def sizes(value: object) -> bool:
    """Whether `value` is a list or tuple of at most 64 integers that fit into 64 bits."""
    if not isinstance(value, _SEQUENCES) or len(value) > MAX_DIMENSIONS:
        return False
    return not value or words(value)


def words(numbers: Sequence[object]) -> bool:
    """Whether `numbers`, at least one, are integers that fit into 64 bits."""
    # The exact type: a bool would pass isinstance. All of it in C: this runs for every tensor.
    if set(map(type, numbers)) != _INTS:
        return False
    return min(numbers) >= -_WORD and max(numbers) < _WORD  # type: ignore[type-var,operator]


@lru_cache(maxsize=1024)
def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements, as torch gives them to a new tensor."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
