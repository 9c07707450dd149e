"""What a writer must know before the first byte is written: where everything will lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tensorkeep.dtypes import DType


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor to be written, contiguous, little-endian."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    nbytes: int


def _nothing(_checksums: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    return iter(())


@dataclass(slots=True)
class Layout:
    """A file planned. All positions in bytes from its start.

    `positions`: where each entry's bytes go, in the order of the entries. `fixed`: bytes known
    now. `closing`: bytes that need the entries' CRC-32s, which are computed only if `checksums`.
    """

    total: int
    positions: list[int]
    fixed: list[tuple[int, bytes]]
    checksums: bool = False
    closing: Callable[[Sequence[int]], Iterator[tuple[int, bytes]]] = field(default=_nothing)


@dataclass(frozen=True, slots=True)
class Named:
    """In a tree of values the place of the tensor `name`, an entry or an alias.

    Around it stand dicts, lists, tuples, sets, and `Items` of an OrderedDict or a Counter;
    beside it None, booleans, numbers, texts and bytes. `Items.attributes` are its state.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Request:
    """What goes into one file: entries, further names of the same tensors, text, versions.

    `names`: all names in the order of the source. `aliases`: a name to the entry that it is the
    same tensor as. `versions`: the `_metadata` of a module's state dict (per module, what
    `load_state_dict` asks for), which only torch's format holds. `tree`: the whole value of the
    file, where it is more than a dict of `names`; also for torch's format alone.
    """

    entries: Sequence[Entry]
    names: Sequence[str]
    aliases: Mapping[str, str]
    metadata: Mapping[str, str]
    versions: Mapping[str, Mapping[str, object]] | None = None
    tree: object = None
