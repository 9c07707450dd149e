"""Tensors that are memory corruption waiting for the first operation on them (kind G).

python tests/corpus/hostile/make_memory.py needs the standard library only. Loaders build these
tensors without looking at the numbers; see `make.py` for how cases are kept.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from make import DANGEROUS, SUSPICIOUS, keep  # noqa: E402
from tricks import (  # noqa: E402
    OD,
    P2,
    WEIGHT,
    Member,
    archive,
    checkpoint,
    g,
    i,
    state_dict,
    tensor,
    u,
)

BOUNDS = "tensor/out-of-bounds"
PAST = tensor(shape=(1 << 20,))  # four megabytes over a storage of 16 bytes


def longs(*numbers):
    return struct.pack(f"<{len(numbers)}q", *numbers)


def numbers(values):
    return b"(" + b"".join(map(i, values)) + b"t"


def view(key, shape, kind="LongStorage", numel=None, stride=None, location="cpu"):
    """A contiguous tensor over all of a storage."""
    count, steps = 1, []
    for size in reversed(shape):
        steps.insert(0, count)
        count *= size
    count = count if numel is None else numel
    storage = b"(" + u("storage") + g("torch", kind) + u(key) + u(location) + i(count) + b"tQ"
    place = storage + i(0) + numbers(shape) + numbers(steps if stride is None else stride)
    return g("torch._utils", "_rebuild_tensor_v2") + b"(" + place + b"\x89" + OD + b"tR"


def sparse(layout, *parts, size, more=b""):
    """`_rebuild_sparse_tensor(layout, (*parts, size))`."""
    named = g("torch.serialization", "_get_layout") + u(f"torch.{layout}") + b"\x85R"
    shape = g("torch", "Size") + numbers(size) + b"\x85R"
    data = b"(" + b"".join(parts) + shape + more + b"t"
    return g("torch._utils", "_rebuild_sparse_tensor") + named + data + b"\x86R"


def bent(name, value, *storages, verdict=DANGEROUS, rules=BOUNDS, order=b"little"):
    """A file that holds nothing but `value`; `storages` are the bytes of data/1, data/2, ..."""
    members = [
        Member("archive/data.pkl", P2 + b"}" + u("bent") + value + b"s."),
        Member("archive/byteorder", order),
        Member("archive/data/0", WEIGHT),
        *(Member(f"archive/data/{at}", data) for at, data in enumerate(storages, 1)),
        Member("archive/version", b"3\n"),
    ]
    keep(name, "G", verdict, rules, archive(members))


def values(count):
    return view("0", (count,), "FloatStorage", 4)


def coo():
    one = (view("1", (1, 1)), values(1))
    bent("coo_index_past_size", sparse("sparse_coo", *one, size=(3,)), longs(1 << 40))
    bent("coo_index_of_size", sparse("sparse_coo", *one, size=(3,)), longs(3))
    bent("coo_negative_index", sparse("sparse_coo", *one, size=(3,)), longs(-1))
    # Turned round, as the file asks, the index 1 is 2 to the power of 56.
    bent("coo_big_endian", sparse("sparse_coo", *one, size=(3,)), longs(1), order=b"big")
    short = (view("1", (1, 4)), values(1))
    bent("coo_more_indices_than_values", sparse("sparse_coo", *short, size=(9,)), longs(0, 1, 2, 3))
    many = (view("1", (1, 1 << 40), numel=1 << 40), values(1))
    bent("coo_nnz_past_record", sparse("sparse_coo", *many, size=(9,)), longs(0))
    # Sorted indices are promised; what searches among them by halves goes astray.
    two = (view("1", (1, 2)), values(2))
    bent(
        "coo_coalesced_out_of_order",
        sparse("sparse_coo", *two, size=(3,), more=b"\x88"),
        longs(2, 0),
        verdict=SUSPICIOUS,
        rules="tensor/odd",
    )


def compressed():
    def csr(name, rows, columns, layout="sparse_csr", size=(3, 3), block=()):
        count = len(columns)
        parts = (
            view("1", (len(rows),)),
            view("2", (count,)),
            view("0", (count, *block), "FloatStorage", 4),
        )
        bent(name, sparse(layout, *parts, size=size), longs(*rows), longs(*columns))

    csr("csr_column_past_size", (0, 1, 1, 2), (0, 3))
    csr("csr_rows_go_down", (0, 2, 0, 2), (0, 1))
    csr("csr_rows_end_past_values", (0, 1, 2, 1 << 30), (0, 1))
    csr("csr_too_few_rows", (0, 2), (0, 1))
    csr("csc_row_past_size", (0, 1, 1, 2), (0, 9), "sparse_csc")
    csr("bsr_block_past_size", (0, 1), (2,), "sparse_bsr", (2, 4), (2, 2))


def quantised():
    def channels(name, axis, count):
        storage = (
            b"(" + u("storage") + g("torch", "QInt8Storage") + u("0") + u("cpu") + i(16) + b"tQ"
        )
        scales = view("1", (count,), "DoubleStorage"), view("2", (count,))
        quantizer = b"(" + g("torch", "per_channel_affine") + b"".join(scales) + i(axis) + b"t"
        place = storage + i(0) + numbers((4, 4)) + numbers((4, 1))
        call = b"(" + place + quantizer + b"\x89" + OD + b"tR"
        value = g("torch._utils", "_rebuild_qtensor") + call
        bent(name, value, struct.pack(f"<{count}d", *[1.0] * count), longs(*[0] * count))

    channels("quantiser_axis_past_dimensions", 7, 4)
    channels("quantiser_scales_too_few", 0, 1)


def nested():
    def parts(name, sizes, strides, offset):
        value = b"(" + values(4) + view("1", (1, 1)) + view("2", (1, 1)) + view("3", (1,)) + b"tR"
        value = g("torch._utils", "_rebuild_nested_tensor") + value
        bent(name, value, longs(sizes), longs(strides), longs(offset))

    parts("nested_offset_past_buffer", 4, 1, 1 << 20)
    parts("nested_size_past_buffer", 1 << 20, 1, 0)
    parts("nested_negative_offset", 1, 1, -64)


def hidden():
    """Views that no walk of the value meets."""
    keep("view_as_key", "G", DANGEROUS, BOUNDS, checkpoint(state_dict(b"}" + PAST + b"K\x01s")))
    metadata = OD + b"}" + u("_metadata") + PAST + b"sb"
    keep("view_in_metadata", "G", DANGEROUS, BOUNDS, checkpoint(state_dict(metadata)))
    parts = b"".join(u(name) + b"}" for name in ("_parameters", "_buffers", "_modules"))
    state = b"}(" + parts + u("kept") + PAST + b"u"
    module = g("torch.nn.modules.linear", "Identity") + b")\x81" + state + b"b"
    keep("view_in_module_state", "G", DANGEROUS, BOUNDS, checkpoint(state_dict(module)))
    keep("view_popped", "G", DANGEROUS, BOUNDS, checkpoint(state_dict(PAST + b"0N")))
    # OBJ calls a function just as REDUCE does.
    opened = b"(" + PAST[:-2].replace(b"_v2\n(", b"_v2\n", 1) + b"o"
    keep("view_by_obj", "G", DANGEROUS, BOUNDS, checkpoint(state_dict(opened)))


def storages():
    untyped = view("0", (4,), "UntypedStorage", 1 << 40)
    bent("untyped_storage_past_record", untyped)
    # Asked to load on the CPU, torch takes the record for the storage, however short it is.
    bent("meta_storage_past_record", view("0", (4,), "FloatStorage", 1 << 40, location="meta"))


if __name__ == "__main__":
    for group in (coo, compressed, quantised, nested, hidden, storages):
        group()
