"""Tensors that share storages as in the file: views of one storage stay views of one.

A tensor is handed out before its bytes are read. When all are known, each storage is read once,
from the first byte that a view of it touches to the last, and the tensors are set on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tensorkeep.checkpoints.tensor import strided
from tensorkeep.formats.contents import Storage, TensorRecord
from tensorkeep.live import staging, storages
from tensorkeep.live.devices import Destinations
from tensorkeep.live.placing import Piece
from tensorkeep.live.policies import is_real
from tensorkeep.live.tensors import as_tensor, check_size, torch_dtype
from tensorkeep.progress import SILENT, Reporter

_WIDEST = 16  # bytes of the largest element


@dataclass(slots=True)
class _Shared:
    """A storage and its views. `begin` and `end` are the bytes of it that they touch."""

    storage: Storage
    name: str
    begin: int
    end: int
    views: list[tuple[torch.Tensor, TensorRecord]] = field(default_factory=list)

    @property
    def piece(self) -> Piece:
        kinds = {record.dtype.itemsize for _, record in self.views}
        if len(kinds) > 1:
            self.begin -= self.begin % _WIDEST  # a whole number of elements for each of them
        size = min(max(kinds), 8)
        # What is turned round is turned in memory of its own.
        gather = self._raw if self.storage.swapped > 1 else None
        return Piece(self.storage, self.begin, self.end - self.begin, size, gather)

    def _raw(self, buffer: memoryview) -> None:
        self.storage.read_into(self.begin, buffer)


class Sharing:
    """The tensors of one value, on their way."""

    def __init__(self, to: Destinations, dtype: torch.dtype | None) -> None:
        self.to = to
        self.dtype = dtype
        self._shared: dict[int, _Shared] = {}

    def tensor(self, record: TensorRecord, name: str) -> torch.Tensor:
        """A tensor that has its bytes when `read` has run."""
        record.check(name)
        check_size(record, name)
        kind = torch_dtype(record.dtype, name)
        known = self._shared.get(id(record.storage))
        device = self._device(known.name if known else name, record)
        if "meta" in (record.storage.device, device.type):
            made = torch.empty_strided(
                record.shape, record.stride, dtype=self._cast(kind), device="meta"
            )
            return _finished(made, record)
        made = torch.empty(0, dtype=self._cast(kind), device=device)
        if record.parameter:
            made = torch.nn.Parameter(made, requires_grad=False)
        begin, end = strided(record).span()
        if known is None:
            known = _Shared(record.storage, name, begin, end)
            self._shared[id(record.storage)] = known
        if end > begin:
            empty = known.end == known.begin
            known.begin = begin if empty else min(known.begin, begin)
            known.end = max(known.end, end)
        known.views.append((made, record))
        return made

    def _device(self, name: str, record: TensorRecord) -> torch.device:
        if self.to.function is not None:
            return torch.device("cpu")  # it will be called when the bytes are there
        return self.to.of(name, record.storage.device)

    @property
    def nbytes(self) -> int:
        """What `read` will read."""
        return sum(each.end - each.begin for each in self._shared.values())

    def _cast(self, kind: torch.dtype) -> torch.dtype:
        return self.dtype if self.dtype is not None and is_real(kind) else kind

    def read(self, *, mapped: bool, reporter: Reporter = SILENT) -> None:
        """Give every tensor its bytes. Raises what reading raises."""
        whole = [each for each in self._shared.values() if each.end > each.begin]
        rest = self._stage(whole, reporter) if not self.to.is_host else whole
        made = storages.read([each.piece for each in rest], mapped=mapped, reporter=reporter)
        for each, storage in zip(rest, made, strict=True):
            self._set(each, storage)
        for each in self._shared.values():
            if each.end == each.begin:
                self._set(each, storages.empty())

    def _stage(self, whole: list[_Shared], reporter: Reporter) -> list[_Shared]:
        """Bring what goes to an accelerator there; the rest is given back."""
        straight = [each for each in whole if each.storage.swapped < 2 and not self.to.function]
        devices = [self.to.of(each.name, each.storage.device) for each in straight]
        made = staging.read([each.piece for each in straight], devices, reporter)
        for number, storage in made.items():
            self._set(straight[number], storage)
        done = {id(straight[number]) for number in made}
        return [each for each in whole if id(each) not in done]

    def _set(self, each: _Shared, storage: torch.UntypedStorage) -> None:
        if each.storage.swapped > 1 and each.end > each.begin:
            storages.turn(storage, torch_dtype(each.views[0][1].dtype))
        storage = self.to.storage(storage, each.name, each.storage.device)
        cast: dict[str, torch.UntypedStorage] = {}
        for tensor, record in each.views:
            kind = record.dtype.name
            if kind not in cast:
                cast[kind] = self._cast_storage(storage, record)
            self._view(tensor, record, cast[kind], each.begin)

    def _cast_storage(
        self, storage: torch.UntypedStorage, record: TensorRecord
    ) -> torch.UntypedStorage:
        """All elements of the storage cast, so that views of it stay views of one storage."""
        kind = torch_dtype(record.dtype)
        if self._cast(kind) == kind:
            return storage
        count = storage.nbytes() // record.dtype.itemsize
        flat = as_tensor(storage, record.dtype, (count,), (1,))
        return flat.to(self.dtype).untyped_storage()

    def _view(
        self,
        tensor: torch.Tensor,
        record: TensorRecord,
        storage: torch.UntypedStorage,
        begin: int,
    ) -> None:
        # An empty view may begin anywhere; it has no bytes that could say where.
        offset = record.offset - begin // record.dtype.itemsize if record.numel else 0
        kind = tensor.dtype
        with torch.no_grad():
            if storage.device != tensor.device:
                tensor.data = torch.empty(0, dtype=kind, device=storage.device)
            tensor.set_(storage, offset, record.shape, record.stride)
        _finished(tensor, record)


def _finished(tensor: torch.Tensor, record: TensorRecord) -> torch.Tensor:
    bits = {"conj": record.conj, "neg": record.neg}
    if any(bits.values()):
        torch._utils.set_tensor_metadata(tensor, {k: v for k, v in bits.items() if v})  # type: ignore[no-untyped-call]
    if record.requires_grad:
        tensor.requires_grad_(True)
    return tensor
