"""Records into tensors: each contiguous, with a storage of its own, tied ones with one together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import prod

import torch

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.errors import LimitExceeded, Unsupported
from tensorkeep.formats.contents import TensorRecord, contiguous_stride
from tensorkeep.live import small, staging, storages
from tensorkeep.live.devices import HOST, Destinations, alias
from tensorkeep.live.placing import Piece
from tensorkeep.progress import SILENT, Reporter

_DTYPES = {
    name: found for name in BY_NAME if isinstance(found := getattr(torch, name, None), torch.dtype)
}
# How many bytes tensors may be that repeat their storages.
_EXEMPT = 1 << 30
_MOST_TIMES = 64
_WORD = 1 << 63


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
    if stays and not mapped and _share_nothing(refs):
        found = small.load(refs, reporter)
        groups = [names for names in groups if names[0] not in found] if found else groups

    def put(tensor: torch.Tensor, names: list[str]) -> None:
        ref = refs[names[0]]
        if not stays:
            found.update(to.place(tensor, ref, names, dtype))
            return
        found[names[0]] = tensor
        for name in names[1:]:
            found[name] = alias(tensor)

    whole, pieces = [], []
    for names in groups:
        ref = refs[names[0]]
        record = ref.record
        hidden = not stays and to.all_meta(names, record.storage.device)
        length = record.nbytes
        if not hidden and length and record.storage.device != "meta":
            whole.append(names)
            pieces.append(piece_of(ref, length))
        else:
            put(_hollow(ref, hidden=hidden), names)
    _refuse_repetition(pieces, refs[whole[0][0]].name if whole else "")
    if not stays:
        pieces, whole = _staged(pieces, whole, refs, to, put, reporter)
    for batch in storages.batches(pieces, mapped=mapped, at_once=stays, reporter=reporter):
        for number, memory, offset in batch:
            names = whole[number]
            tensor = _tensor(refs[names[0]], memory, offset)
            if stays and len(names) == 1:  # nearly always
                found[names[0]] = tensor
            else:
                put(tensor, names)
        batch.clear()  # an arena that was cast or copied away is let go before the next is filled
    return {name: found[name] for name in refs}


def _staged(
    pieces: list[Piece],
    whole: list[list[str]],
    refs: Mapping[str, TensorRef],
    to: Destinations,
    put: Callable[[torch.Tensor, list[str]], None],
    reporter: Reporter,
) -> tuple[list[Piece], list[list[str]]]:
    """Bring what goes to an accelerator there; what is left to do is given back."""
    if to.function is not None:
        return pieces, whole
    first = [refs[names[0]] for names in whole]
    devices = [
        to.of(names[0], ref.record.storage.device) for names, ref in zip(whole, first, strict=True)
    ]
    made = staging.read(pieces, devices, reporter)
    for number, storage in made.items():
        record = first[number].record
        stride = contiguous_stride(record.shape)
        put(as_tensor(storage, record.dtype, record.shape, stride), whole[number])
    rest = [number for number in range(len(pieces)) if number not in made]
    return [pieces[number] for number in rest], [whole[number] for number in rest]


def _groups(refs: Mapping[str, TensorRef]) -> list[list[str]]:
    """Names that are one tensor. Nearly every storage has one tensor, which then needs no key."""
    for ref in refs.values():
        if ref.record.problem:
            ref.record.check(ref.name)
    if _share_nothing(refs):
        return [[name] for name in refs]
    by_storage: dict[int, list[str]] = {}
    for name, ref in refs.items():
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


def _share_nothing(refs: Mapping[str, TensorRef]) -> bool:
    return len({id(ref.record.storage) for ref in refs.values()}) == len(refs)


def tie_key(record: TensorRecord) -> Hashable:
    """The same for records that are the very same tensor."""
    stride = tuple(
        step if size != 1 else 0 for size, step in zip(record.shape, record.stride, strict=True)
    )
    place = (id(record.storage), record.dtype.name, record.shape, stride, record.offset)
    return (*place, record.conj, record.neg)


def _hollow(ref: TensorRef, *, hidden: bool) -> torch.Tensor:
    """A tensor without bytes: empty, saved from the meta device, or going there."""
    record = ref.record
    check_size(record, ref.name)
    device = "meta" if hidden or record.storage.device == "meta" else "cpu"
    return torch.empty(record.shape, dtype=torch_dtype(record.dtype, ref.name), device=device)


def check_size(record: TensorRecord, name: str) -> None:
    """Raise `Unsupported` for a shape that torch cannot count, though it may have no elements."""
    if prod([size or 1 for size in record.shape]) < _WORD:
        return
    try:
        torch.empty(record.shape, dtype=torch.uint8, device="meta")
    except RuntimeError as error:
        raise Unsupported(
            f"tensor {name!r}",
            expected="a shape that torch can count the elements of",
            got=list(record.shape),
            remedy="Leave the tensor out with skip=.",
        ) from error


def piece_of(ref: TensorRef, length: int) -> Piece:
    """The bytes of a contiguous copy of the tensor, `length` of them."""
    record = ref.record
    size = record.dtype.itemsize
    if ref.direct:
        return Piece(record.storage, record.offset * size, length, size if size < 8 else 8)
    return Piece(record.storage, 0, length, gather=lambda buffer: _gather(ref, buffer))


def _refuse_repetition(pieces: Sequence[Piece], first: str) -> None:
    """A few bytes, repeated by a stride of 0 or by many views, can claim all memory there is."""
    length = sum([piece.length for piece in pieces])
    if length <= _EXEMPT:
        return
    stored = sum({id(piece.storage): piece.storage.nbytes for piece in pieces}.values())
    if length > _MOST_TIMES * stored:
        raise LimitExceeded(
            f"tensor {first!r}" if len(pieces) == 1 else f"tensor {first!r} and those beside it",
            expected=f"at most {_MOST_TIMES} times the {stored:,} bytes of their storages",
            got=f"{length:,} bytes",
            remedy="Load with nested=True, which keeps views of one storage as views.",
        )


def _gather(ref: TensorRef, buffer: memoryview) -> None:
    at = 0
    for piece in ref.blocks():
        buffer[at : at + len(piece)] = piece
        at += len(piece)


def _tensor(ref: TensorRef, memory: object, offset: int) -> torch.Tensor:
    """The contiguous tensor whose bytes begin at `offset` of `memory`, which it keeps alive."""
    record = ref.record
    shape = record.shape
    dtype = record.dtype
    kind = _DTYPES.get(dtype.name) or torch_dtype(dtype, ref.name)
    if dtype.kind == "quantized":
        storage = storages.view(memory, offset, record.nbytes)
        return as_tensor(storage, dtype, shape, contiguous_stride(shape), name=ref.name)
    made = torch.frombuffer(memory, dtype=kind, count=prod(shape), offset=offset)
    # In place: `view` would give a tensor that is a view of another one.
    return made if len(shape) == 1 else made.resize_(shape)


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
