"""Records into tensors: each contiguous, with a storage of its own, tied ones with one together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.errors import LimitExceeded, Unsupported
from tensorkeep.formats.contents import TensorRecord, contiguous_stride
from tensorkeep.live import storages
from tensorkeep.live.devices import HOST, Destinations, alias
from tensorkeep.live.placing import Piece
from tensorkeep.progress import SILENT, Reporter

_DTYPES = {
    name: found for name in BY_NAME if isinstance(found := getattr(torch, name, None), torch.dtype)
}
# How large a tensor may be that repeats its storage.
_EXEMPT = 1 << 30
_MOST_TIMES = 64


def torch_dtype(dtype: DType, name: str = "") -> torch.dtype:
    """torch's own. Raises `Unsupported` if the installed version does not have it."""
    found = _DTYPES.get(dtype.name)
    if found is not None:
        return found
    raise Unsupported(
        f"tensor {name!r}",
        expected="a dtype that the installed torch has",
        got=dtype,
        remedy="Install a newer torch, or leave the tensor out with skip=.",
    )


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
    tensors become. Raises `Damaged`, `Unsupported`, `LimitExceeded` and what reading raises.
    """
    groups = _groups(refs)
    stays = dtype is None and to.is_host
    found: dict[str, torch.Tensor] = {}

    def put(tensor: torch.Tensor, names: list[str]) -> None:
        ref = refs[names[0]]
        if not stays:
            found.update(to.place(tensor, ref, names, dtype))
            return
        found[names[0]] = tensor
        for name in names[1:]:
            found[name] = alias(tensor)

    whole = []
    for names in groups:
        if _has_bytes(refs[names[0]].record):
            whole.append(names)
        else:
            put(_hollow(refs[names[0]]), names)
    pieces = [piece_of(refs[names[0]]) for names in whole]
    for batch in storages.batches(pieces, mapped=mapped, at_once=stays, reporter=reporter):
        for number, storage in batch:
            put(_tensor(refs[whole[number][0]], storage), whole[number])
        batch.clear()  # an arena that was cast or copied away is let go before the next is filled
    return {name: found[name] for name in refs}


def _groups(refs: Mapping[str, TensorRef]) -> list[list[str]]:
    """Names that are one tensor. Nearly every storage has one tensor, which then needs no key."""
    by_storage: dict[int, list[str]] = {}
    for name, ref in refs.items():
        ref.record.check(ref.name)
        by_storage.setdefault(id(ref.record.storage), []).append(name)
    groups: list[list[str]] = []
    for names in by_storage.values():
        if len(names) == 1:
            groups.append(names)
            continue
        tied: dict[Hashable, list[str]] = {}
        for name in names:
            record = refs[name].record
            tied.setdefault(tie_key(record) if record.nbytes else name, []).append(name)
        groups += tied.values()
    return groups


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
    size, length = record.dtype.itemsize, record.nbytes
    if ref.direct:
        return Piece(record.storage, record.offset * size, length, min(size, 8))
    _refuse_repetition(ref, length)
    return Piece(record.storage, 0, length, gather=lambda buffer: _gather(ref, buffer))


def _refuse_repetition(ref: TensorRef, length: int) -> None:
    """A few bytes, repeated by a stride of 0, can claim all memory there is."""
    stored = ref.record.storage.nbytes
    if length > max(_EXEMPT, _MOST_TIMES * stored):
        raise LimitExceeded(
            f"tensor {ref.name!r}",
            expected=f"a tensor of at most {_MOST_TIMES} times its storage of {stored} bytes",
            got=f"{length} bytes",
            remedy="Load with nested=True, which keeps such a tensor as a view of its storage.",
        )


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
