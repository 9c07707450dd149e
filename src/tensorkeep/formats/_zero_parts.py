"""The flat vectors of a ZeRO checkpoint, and where in them each parameter lies.

Source: DeepSpeed 0.19 `utils/zero_to_fp32.py`, which every checkpoint carries along. Stages 1
and 2 cut the concatenation of a group's parameters into one run for each rank, with paddings;
stage 3 cuts each parameter into equal runs, the last ones padded, and a rank concatenates its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tensorkeep.errors import Damaged
from tensorkeep.formats._chunks import Chunk, Chunked
from tensorkeep.formats.contents import TensorRecord, contiguous_stride

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Vectors = Sequence[TensorRecord]


@dataclass(frozen=True, slots=True)
class Run:
    """Elements `start` to `end` of a vector."""

    vector: TensorRecord
    start: int
    end: int


def runs_of(vectors: Vectors, start: int, end: int) -> Iterator[Run]:
    """The runs that are elements `start` to `end` of the vectors, one behind the other."""
    at = 0
    for vector in vectors:
        size = vector.shape[0]
        low, high = max(start - at, 0), min(end - at, size)
        if low < high:
            yield Run(vector, low, high)
        at += size


def joined(name: str, shape: Shape, runs: Sequence[Run], like: TensorRecord) -> TensorRecord:
    """The tensor `name` of `shape`, made of `runs` of vectors that are like `like`.

    Raises `Damaged` if they are too short, or of another dtype.
    """
    chunks, at = [], 0
    for run in runs:
        size = run.end - run.start
        part = _part(run)
        chunks.append(Chunk((at,), (size,), lambda part=part: part))  # type: ignore[misc]
        at += size
    if at != prod(shape) or any(run.vector.dtype is not like.dtype for run in runs):
        raise Damaged(
            name,
            expected=f"{prod(shape)} elements of one dtype, for shape {list(shape)}",
            got=f"partitions with {at}",
        )
    storage = Chunked(f"fp32:{name}", like.dtype, (at,), chunks, like.storage.blob)
    return TensorRecord(like.dtype, shape, contiguous_stride(shape), 0, storage)


def _part(run: Run) -> TensorRecord:
    vector = run.vector
    offset = vector.offset + run.start * vector.stride[0]
    part = TensorRecord(vector.dtype, (run.end - run.start,), vector.stride, offset, vector.storage)
    part.problem, part.conj, part.neg = vector.problem, vector.conj, vector.neg
    return part


def stage_2(
    groups: Sequence[Shapes], vectors: Sequence[Vectors], paddings: object
) -> dict[str, TensorRecord]:
    """Parameters of stages 1 and 2; `vectors` are each rank's, one for each group."""
    found = {}
    ranks = len(vectors)
    if any(len(own) != len(groups) for own in vectors):
        raise Damaged("partitions", expected=f"{len(groups)} groups on each rank", got="others")
    for number, shapes in enumerate(groups):
        own = [vectors[rank][number] for rank in range(ranks)]
        offset = 0
        gaps = _gaps(paddings, number, len(shapes))
        for (name, shape), gap in zip(shapes.items(), gaps, strict=True):
            size = prod(shape)
            runs = list(runs_of(own, offset, offset + size))
            found[name] = joined(name, shape, runs, own[0])
            offset += size + gap
        total = sum(vector.shape[0] for vector in own)
        unit = 2 * ranks
        if -(-offset // unit) != -(-total // unit):
            raise Damaged(
                f"group {number}",
                expected=f"partitions of {offset} elements, aligned to {unit}",
                got=f"{total}",
            )
    return found


def _gaps(paddings: object, number: int, count: int) -> list[int]:
    """The padding behind each parameter of a group (DeepSpeed 0.19; none before)."""
    if paddings is None:
        return [0] * count
    own = paddings[number] if isinstance(paddings, list) and number < len(paddings) else None
    good = isinstance(own, list) and all(type(gap) is int and 0 <= gap < 1 << 40 for gap in own)
    if not good or len(own) != count:  # type: ignore[arg-type]
        raise Damaged(
            "param_alignment_paddings", expected=f"{count} for group {number}", got="others"
        )
    assert isinstance(own, list)
    return own


def stage_3(groups: Sequence[Shapes], vectors: Sequence[Vectors]) -> dict[str, TensorRecord]:
    """Parameters of stage 3; `vectors` are each rank's, one behind the other."""
    found, offset, ranks = {}, 0, len(vectors)
    for name, shape in ((n, s) for shapes in groups for n, s in shapes.items()):
        size = prod(shape)
        share = -(-size // ranks)
        runs = list(_shares(vectors, offset, share, size))
        found[name] = joined(name, shape, runs, vectors[0][0])
        offset += share
    totals = {sum(vector.shape[0] for vector in own) for own in vectors}
    if len(totals) > 1 or (totals and min(totals) < offset):
        raise Damaged("partitions", expected=f"{offset} elements on each rank", got=sorted(totals))
    return found


def _shares(vectors: Sequence[Vectors], offset: int, share: int, size: int) -> Iterator[Run]:
    for rank, own in enumerate(vectors):
        rest = min(share, size - rank * share)
        if rest > 0:
            yield from runs_of(own, offset, offset + rest)


def frozen(name: str, shape: Shape, fragments: Vectors) -> TensorRecord:
    """A parameter that is not trained: the fragments of all ranks one behind the other."""
    flat = [_flat(fragment) for fragment in fragments]
    return joined(name, shape, list(runs_of(flat, 0, prod(shape))), flat[0])


def _flat(record: TensorRecord) -> TensorRecord:
    if len(record.shape) == 1:
        return record
    if record.stride != contiguous_stride(record.shape):
        raise Damaged("a frozen parameter", expected="contiguous", got=f"stride {record.stride}")
    flat = TensorRecord(record.dtype, (record.numel,), (1,), record.offset, record.storage)
    flat.problem = record.problem
    return flat
