"""Whether the shapes of a sparse tensor's parts fit together, as torch's own invariants say.

Source: `aten/src/ATen/native/sparse/SparseTensor.cpp` (`_validate_sparse_coo_tensor_args`) and
`SparseCsrTensor.cpp` (`_validate_sparse_compressed_tensor_args_worker`) of torch 2.13. A loader
skips these checks unless it is asked for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorkeep.formats.contents import TensorRecord

PARTS: dict[str, tuple[str, ...]] = {
    "sparse_coo": ("indices", "values"),
    "sparse_csr": ("crow_indices", "col_indices", "values"),
    "sparse_csc": ("ccol_indices", "row_indices", "values"),
    "sparse_bsr": ("crow_indices", "col_indices", "values"),
    "sparse_bsc": ("ccol_indices", "row_indices", "values"),
}
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compressed:
    """The sizes that a compressed layout is about, in blocks: rows by columns, or the reverse.

    `batch` dimensions come first; `compressed` counts what the compressed indices delimit and
    `plain` is what the plain indices count up to.
    """

    batch: int
    compressed: int
    plain: int
    block: Shape


def check(layout: str, parts: Mapping[str, TensorRecord], size: Shape) -> tuple[int, str]:
    """How many elements are specified, and what is wrong, or ""."""
    if min(size, default=0) < 0:
        return 0, f"has the negative size {list(size)}"
    if layout == "sparse_coo":
        return _coo(parts["indices"], parts["values"], size)
    compressed, plain = (parts[name] for name in PARTS[layout][:2])
    return _compressed(layout, compressed, plain, parts["values"], size)


def _coo(indices: TensorRecord, values: TensorRecord, size: Shape) -> tuple[int, str]:
    if len(indices.shape) != 2 or not values.shape:
        return 0, f"has indices of shape {list(indices.shape)}"
    sparse, nnz = indices.shape
    if indices.dtype.name != "int64":
        return nnz, f"has indices of {indices.dtype}"
    if sparse > len(size) or values.shape != (nnz, *size[sparse:]):
        shapes = f"{list(indices.shape)} and {list(values.shape)}"
        return nnz, f"of size {list(size)} has indices and values of shapes {shapes}"
    return nnz, ""


def compressed_sizes(layout: str, compressed: Shape, values: Shape, size: Shape) -> Compressed:
    """The sizes in blocks. Raises `ValueError` where there are too few dimensions."""
    batch = len(compressed) - 1
    blocked = layout in ("sparse_bsr", "sparse_bsc")
    block = values[batch + 1 : batch + 3] if blocked else (1, 1)
    if batch < 0 or len(size) < batch + 2 or len(block) != 2 or min(block) < 1:
        raise ValueError("too few dimensions")
    rows, columns = size[batch] // block[0], size[batch + 1] // block[1]
    if layout in ("sparse_csc", "sparse_bsc"):
        rows, columns = columns, rows
    return Compressed(batch, rows, columns, block if blocked else ())


def _compressed(
    layout: str, compressed: TensorRecord, plain: TensorRecord, values: TensorRecord, size: Shape
) -> tuple[int, str]:
    nnz = plain.shape[-1] if plain.shape else 0
    try:
        sizes = compressed_sizes(layout, compressed.shape, values.shape, size)
    except ValueError as error:
        return nnz, f"has {error}"
    names = {compressed.dtype.name, plain.dtype.name}
    if len(names) > 1 or not names <= {"int32", "int64"}:
        return nnz, f"has indices of {compressed.dtype} and {plain.dtype}"
    batch, dense = size[: sizes.batch], size[sizes.batch + 2 :]
    wanted = (
        (*batch, sizes.compressed + 1),
        (*batch, nnz),
        (*batch, nnz, *sizes.block, *dense),
    )
    got = (compressed.shape, plain.shape, values.shape)
    blocks = sizes.block or (1, 1)
    uneven = any(size[sizes.batch + at] % blocks[at] for at in (0, 1))
    if wanted != got or uneven:
        shapes = ", ".join(str(list(shape)) for shape in got)
        return nnz, f"of size {list(size)} has parts of shapes {shapes}"
    return nnz, ""
