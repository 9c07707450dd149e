"""Records into tensors: each contiguous, with a storage of its own, tied ones with one together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.dtypes import DType
from tensorkeep.errors import Unsupported
from tensorkeep.formats.contents import TensorRecord, contiguous_stride
from tensorkeep.live import storages
from tensorkeep.live.devices import HOST, Destinations
from tensorkeep.live.placing import Piece
from tensorkeep.progress import SILENT, Reporter


def torch_dtype(dtype: DType, name: str = "") -> torch.dtype:
    """torch's own. Raises `Unsupported` if the installed version does not have it."""
    found = getattr(torch, dtype.name, None)
    if isinstance(found, torch.dtype):
        return found
    raise Unsupported(
        f"tensor {name!r}",
        expected="a dtype that the installed torch has",
        got=dtype,
        remedy="Install a newer torch, or leave the tensor out with skip=.",
    )


@dataclass(slots=True)
class _Group:
    """Names that are one tensor, and where each of them goes."""

    ref: TensorRef
    names: list[str] = field(default_factory=list)


def load(
    refs: Mapping[str, TensorRef],
    *,
    mapped: bool = False,
    dtype: torch.dtype | None = None,
    to: Destinations = HOST,
    reporter: Reporter = SILENT,
) -> dict[str, torch.Tensor]:
    """The tensors of `refs`, under their names and in their order.

    `mapped`: in a mapping of the file, where that is possible. `dtype`: what real floating point
    tensors become. Raises `Damaged`, `Unsupported` and what reading raises.
    """
    groups = _groups(refs)
    found: dict[str, torch.Tensor] = {}
    whole = [group for group in groups if _has_bytes(group.ref.record)]
    for group in groups:
        if not _has_bytes(group.ref.record):
            found.update(to.place(_hollow(group.ref), group.ref, group.names, dtype))
    pieces = [piece_of(group.ref) for group in whole]
    if mapped:
        made = [list(enumerate(storages.read(pieces, mapped=True, reporter=reporter)))]
        batches = iter(made)
    else:
        stays = dtype is None and to.is_host
        batches = storages.private(pieces, at_once=stays, reporter=reporter)
    for batch in batches:
        for number, storage in batch:
            ref = whole[number].ref
            found.update(to.place(_tensor(ref, storage), ref, whole[number].names, dtype))
        batch.clear()
    return {name: found[name] for name in refs}


def _groups(refs: Mapping[str, TensorRef]) -> list[_Group]:
    groups: dict[Hashable, _Group] = {}
    for name, ref in refs.items():
        ref.record.check(ref.name)
        key = tie_key(ref.record) if ref.record.nbytes else id(ref.record)
        groups.setdefault(key, _Group(ref)).names.append(name)
    return list(groups.values())


def tie_key(record: TensorRecord) -> Hashable:
    """The same for records that are the very same tensor."""
    stride = tuple(
        step if size != 1 else 0 for size, step in zip(record.shape, record.stride, strict=True)
    )
    place = (id(record.storage), record.dtype.name, record.shape, stride, record.offset)
    return (*place, record.conj, record.neg)


def _has_bytes(record: TensorRecord) -> bool:
    return record.nbytes > 0 and record.storage.device != "meta"


def _hollow(ref: TensorRef) -> torch.Tensor:
    """A tensor without bytes: empty, or saved from the meta device."""
    record = ref.record
    device = "meta" if record.storage.device == "meta" else "cpu"
    return torch.empty(record.shape, dtype=torch_dtype(record.dtype, ref.name), device=device)


def piece_of(ref: TensorRef) -> Piece:
    """The bytes of a contiguous copy of the tensor."""
    record = ref.record
    size = record.dtype.itemsize
    start = record.offset * size
    if ref.direct:
        return Piece(record.storage, start, record.nbytes, min(size, 8))
    return Piece(record.storage, start, record.nbytes, gather=lambda buffer: _gather(ref, buffer))


def _gather(ref: TensorRef, buffer: memoryview) -> None:
    at = 0
    for piece in ref.blocks():
        buffer[at : at + len(piece)] = piece
        at += len(piece)


def _tensor(ref: TensorRef, storage: torch.UntypedStorage) -> torch.Tensor:
    record = ref.record
    stride = contiguous_stride(record.shape)
    return as_tensor(storage, record.dtype, record.shape, stride, name=ref.name)


def as_tensor(
    storage: torch.UntypedStorage,
    dtype: DType,
    shape: Sequence[int],
    stride: Sequence[int],
    offset: int = 0,
    name: str = "",
) -> torch.Tensor:
    """A tensor over `storage`; shape, stride and offset in elements. No view of another tensor."""
    made = torch.empty(0, dtype=torch_dtype(dtype, name), device=storage.device)
    return made.set_(storage, offset, tuple(shape), tuple(stride))
