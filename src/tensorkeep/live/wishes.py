"""What each tensor of a module shall be made of, and the tensors, made so, before it is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.edits.arrays import Array
from tensorkeep.formats.contents import contiguous_stride
from tensorkeep.live import storages, tensors
from tensorkeep.live.arenas import Arena
from tensorkeep.live.devices import Destinations
from tensorkeep.live.incoming import Source
from tensorkeep.live.policies import CastOf, cast
from tensorkeep.live.tensors import as_tensor, torch_dtype
from tensorkeep.progress import SILENT, Reporter

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Wish:
    """For one name of a module. `owner`: the first name of the same parameter.

    `fresh`: the tensor becomes the parameter's memory, which no other may share. `like`: a
    distributed tensor whose part in this process is wanted.
    """

    owner: str
    dtype: torch.dtype
    device: torch.device
    fresh: bool
    like: torch.Tensor | None = None


class Wishes(Destinations):
    """Where tensors go, by the wishes for their names; counts what casts lose."""

    def __init__(self, wishes: Mapping[str, Wish], sources: Mapping[str, Source]) -> None:
        super().__init__()
        self.wishes = wishes
        self.casts: list[CastOf] = []
        self._plain = all(
            wish.device == _CPU and wish.like is None and wish.dtype == dtype_of(sources[name])
            for name, wish in wishes.items()
        ) and not _shared(wishes, sources)

    @property
    def is_host(self) -> bool:
        """Whether every tensor stays as it is read."""
        return self._plain

    def of(self, name: str, location: str) -> torch.device:
        """Distributed tensors are cut on the host: the whole may not fit their device."""
        wish = self.wishes[name]
        return wish.device if wish.like is None else _CPU

    def place(
        self,
        tensor: torch.Tensor,
        ref: TensorRef,
        names: Sequence[str],
        dtype: torch.dtype | None = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensor under each name, as it is wished for."""
        made: dict[tuple[object, ...], torch.Tensor] = {}
        taken = False
        for name in names:
            wish = self.wishes[name]
            key = (wish.owner if wish.fresh else "", wish.dtype, wish.device, id(wish.like))
            if key not in made:
                found = self.fitted(name, tensor)
                if found is tensor and taken and wish.fresh:
                    found = tensor.clone()
                taken = taken or found is tensor
                made[key] = found
            yield name, made[key]

    def fitted(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Cast, moved and cut as the wish says."""
        wish = self.wishes[name]
        if tensor.dtype != wish.dtype:
            tensor, lost = cast(name, tensor, wish.dtype)
            self.casts.append(lost)
        if wish.like is not None:
            return _part(tensor, wish.like)
        return tensor if tensor.device == wish.device else tensor.to(wish.device)


def _shared(wishes: Mapping[str, Wish], sources: Mapping[str, Source]) -> bool:
    """Whether two parameters would get the memory of one tensor of the file."""
    seen: dict[object, str] = {}
    for name, wish in wishes.items():
        source = sources[name]
        if isinstance(source, TensorRef) and source.record.nbytes:
            key = tensors.tie_key(source.record)
            if seen.setdefault(key, wish.owner) != wish.owner:
                return True
    return False


def dtype_of(source: Source) -> torch.dtype:
    """As the file, or the edits, have it. Raises `Unsupported` if torch does not."""
    if isinstance(source, TensorRef):
        return torch_dtype(source.record.dtype, source.name)
    return torch_dtype(source.dtype)


def read(
    wishes: Mapping[str, Wish],
    sources: Mapping[str, Source],
    *,
    mapped: bool,
    reporter: Reporter = SILENT,
) -> tuple[dict[str, torch.Tensor], list[CastOf]]:
    """The tensors by the names of the module, and what was cast. Raises what reading raises."""
    to = Wishes(wishes, sources)
    refs = {n: s for n, s in sources.items() if isinstance(s, TensorRef)}
    for ref in refs.values():
        ref.check()
    found = tensors.load(refs, mapped=mapped, to=to, reporter=reporter) if refs else {}
    made: dict[tuple[Array, str], torch.Tensor] = {}
    for name, source in sources.items():
        if not isinstance(source, TensorRef):
            key = (source, wishes[name].owner)
            if key not in made:
                made[key] = to.fitted(name, computed(source))
            found[name] = made[key]
    return found, to.casts


def computed(array: Array) -> torch.Tensor:
    """What edits make of tensors, contiguous, in memory of its own, on the CPU."""
    if not array.nbytes:
        return torch.empty(array.shape, dtype=torch_dtype(array.dtype))
    for ref in array.sources():
        ref.check()
    arena, at = Arena(array.nbytes), 0
    for block in array.blocks():
        arena.view(at, at + len(block))[:] = block
        at += len(block)
    storage = storages.view(arena.memory, arena.base, array.nbytes)
    return as_tensor(storage, array.dtype, array.shape, contiguous_stride(array.shape))


def _part(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of `tensor`, as the distributed `like` is cut; nothing is sent."""
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def computed_or_read(source: Source) -> torch.Tensor:
    """One tensor as it is, on the CPU."""
    if isinstance(source, TensorRef):
        source.check()
        return tensors.load({source.name: source})[source.name]
    return computed(source)
