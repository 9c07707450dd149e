"""Indices of sparse and nested tensors: what torch's own checks refuse is found, no more."""

from __future__ import annotations

import io
import random

import pytest
import torch

import tensorkeep as tk
from tensorkeep.facts import Limits

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*[Ss]parse.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning"),
]
LAYOUTS = {
    "csr": torch.sparse_csr,
    "csc": torch.sparse_csc,
    "bsr": torch.sparse_bsr,
    "bsc": torch.sparse_bsc,
}


def scanned(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return tk.scan(buffer.getvalue(), **options)


def rules(value):
    return {found.rule for found in scanned(value).findings}


def batch():
    return torch.stack([torch.eye(3), torch.eye(3).flip(0)]).to_sparse_csr()


def hybrid_rows():
    return torch.rand(3, 4, 2).to_sparse_csr(dense_dim=1)


def narrow():
    rows, columns = (
        torch.tensor([0, 1, 2], dtype=torch.int32),
        torch.tensor([1, 0], dtype=torch.int32),
    )
    return torch.sparse_csr_tensor(rows, columns, torch.ones(2), (2, 2))


HONEST = [
    lambda: torch.eye(3).to_sparse(),
    lambda: torch.rand(3, 4, 5).to_sparse(2),
    lambda: torch.sparse_coo_tensor(size=(3, 4)),
    lambda: torch.sparse_coo_tensor(torch.rand(4, 4).nonzero().t(), torch.rand(16), (4, 4)),
    lambda: torch.sparse_coo_tensor(torch.tensor([[1, 1, 0]]), torch.rand(3), (2,)),
    lambda: torch.sparse_coo_tensor(
        torch.zeros(1, 1, dtype=torch.long).expand(1, 5), torch.rand(5)
    ),
    lambda: torch.sparse_coo_tensor(torch.zeros(0, 2, dtype=torch.long), torch.rand(2, 3), (3,)),
    lambda: torch.rand(3, 5).to_sparse_csc(),
    lambda: torch.zeros(3, 5).to_sparse_csr(),
    lambda: torch.rand(4, 6).to_sparse_bsr((2, 3)),
    lambda: torch.rand(4, 6).to_sparse_bsc((2, 3)),
    batch,
    hybrid_rows,
    narrow,
    lambda: torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(4, 3)]),
    lambda: torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(4, 3)]).transpose(1, 2),
    lambda: torch.nested.nested_tensor([torch.rand(1), torch.rand(0)]),
    lambda: torch.sparse_coo_tensor(torch.randint(0, 300_000, (2, 200_000)), torch.rand(200_000)),
]


@pytest.mark.parametrize("make", HONEST, ids=range(len(HONEST)))
def test_honest_ones_are_in_order(make):
    assert rules({"a.b": make()}) == set()


def bent_coo(pick):
    sparse, nnz = pick.randint(1, 3), pick.randint(0, 4)
    size = [pick.randint(1, 4) for _ in range(sparse)]
    rows = [
        [
            pick.randint(-1 if pick.random() < 0.1 else 0, n - (pick.random() < 0.9))
            for _ in range(nnz)
        ]
        for n in size
    ]
    indices = torch.tensor(rows, dtype=torch.int64).reshape(sparse, nnz)
    return indices, torch.rand(nnz), size


def bent_compressed(pick):
    name = pick.choice(list(LAYOUTS))
    block = (pick.randint(1, 2), pick.randint(1, 2)) if name.startswith("b") else ()
    rows, columns = pick.randint(1, 3), pick.randint(1, 3)
    nnz = pick.randint(0, 4)
    starts = sorted(pick.randint(0, nnz) for _ in range(rows + 1))
    starts[0], starts[-1] = (0, nnz) if pick.random() < 0.9 else (starts[0], starts[-1])
    if pick.random() < 0.2:
        pick.shuffle(starts)
    plain = [
        pick.randint(0 if pick.random() < 0.9 else -1, columns - (pick.random() < 0.9))
        for _ in range(nnz)
    ]
    size = [rows, columns] if name.endswith("r") else [columns, rows]
    size = [n * (block or (1, 1))[at] for at, n in enumerate(size)]
    dtype = pick.choice([torch.int32, torch.int64])
    parts = torch.tensor(starts, dtype=dtype), torch.tensor(plain, dtype=dtype)
    return LAYOUTS[name], *parts, torch.rand(nnz, *block), size


def refused(check, *args):
    """What torch says, "" if nothing. That indices are sorted within a row corrupts nothing."""
    try:
        check(*args)
    except RuntimeError as error:
        return "" if "sorted and distinct" in str(error) else str(error)
    return ""


def test_coo_is_judged_as_torch_would():
    pick, wrong = random.Random(1), 0
    for _ in range(150):
        indices, values, size = bent_coo(pick)
        said = refused(torch._validate_sparse_coo_tensor_args, indices, values, size)
        value = torch.sparse_coo_tensor(indices, values, size, check_invariants=False)
        assert rules({"w": value}) == ({"tensor/out-of-bounds"} if said else set()), said
        wrong += bool(said)
    assert 20 < wrong < 130


def test_compressed_is_judged_as_torch_would():
    pick, wrong = random.Random(2), 0
    for _ in range(250):
        layout, rows, columns, values, size = bent_compressed(pick)
        check = torch._validate_sparse_compressed_tensor_args
        said = refused(check, rows, columns, values, size, layout)
        value = torch.sparse_compressed_tensor(
            rows, columns, values, size, layout=layout, check_invariants=False
        )
        assert rules({"w": value}) == ({"tensor/out-of-bounds"} if said else set()), said
        wrong += bool(said)
    assert 40 < wrong < 220


def test_what_lies_beyond_the_first_block_is_read():
    columns = torch.zeros(400_000, dtype=torch.int64)
    columns[-1] = 7
    value = torch.sparse_coo_tensor(
        columns[None], torch.rand(400_000), (7,), check_invariants=False
    )
    assert rules([value]) == {"tensor/out-of-bounds"}
    rows = torch.arange(300_001)
    rows[200_000] = 5
    value = torch.sparse_compressed_tensor(
        rows,
        torch.zeros(300_000, dtype=torch.int64),
        torch.rand(300_000),
        (300_000, 1),
        layout=torch.sparse_csr,
        check_invariants=False,
    )
    assert rules([value]) == {"tensor/out-of-bounds"}


def test_a_small_file_cannot_ask_for_endless_reading():
    """Many tensors over the same indices: each is a line of pickle and would cost megabytes."""
    indices, values = torch.zeros(1, 1 << 17, dtype=torch.int64), torch.rand(1 << 17)
    many = [torch.sparse_coo_tensor(indices, values, (n + 1,)) for n in range(60)]
    report = scanned(many, limits=Limits(max_pickle_bytes=1 << 20))
    assert [found.rule for found in report.findings] == ["read/limit"]
    report = scanned(many, limits=Limits(max_pickle_bytes=1 << 20, max_ratio=10))
    assert [found.rule for found in report.findings] == ["container/amplification"]
    assert scanned(many[:10]).verdict == "safe"
