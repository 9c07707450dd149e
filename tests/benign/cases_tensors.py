"""Tensors: dtypes, layouts, views, parameters, storages, in torch's zip."""

from __future__ import annotations

import re
from typing import Any

import torch
from writing import Case, Make, torch_zip

# What torch 2.13 can save: not its sub-byte integers ("dtype torch.int1 is not recognized").
DTYPES = sorted(
    name
    for name, dtype in vars(torch).items()
    if isinstance(dtype, torch.dtype)
    and str(dtype) == f"torch.{name}"
    and not re.fullmatch("u?int[1-7]|q.*|bits.*|float4.*", name)
)


def of(dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(0, dtype=dtype).set_(torch.UntypedStorage(64).fill_(1), 1, (2,), (1,))


def square() -> torch.Tensor:
    return torch.arange(4.0).reshape(2, 2) + 1


def tied() -> dict[str, torch.Tensor]:
    whole = square()
    return {"embed": whole, "head": whole, "row": whole[0], "transposed": whole.t()}


def attributed() -> torch.nn.Parameter:
    found = torch.nn.Parameter(square())
    found.partition_dim = 1
    found.note = {"sequence_parallel": [True, None]}
    return found


def hollow() -> torch.Tensor:
    return torch.ones(3, 4, device="meta")


def quantised(dtype: torch.dtype) -> torch.Tensor:
    return torch.quantize_per_tensor(square(), 0.5, 0, dtype)


def per_channel() -> torch.Tensor:
    return torch.quantize_per_channel(square(), torch.ones(2), torch.zeros(2), 0, torch.qint8)


def channel_floats() -> torch.Tensor:
    return torch.quantize_per_channel(square(), torch.ones(2), torch.zeros(2), 0, torch.quint8)


def nested(layout: torch.layout) -> torch.Tensor:
    return torch.nested.nested_tensor([square(), square()[:1]], layout=layout)


LAYOUTS: dict[str, Make] = {
    "scalar": lambda: torch.tensor(3.5),
    "empty": lambda: torch.zeros(0, 3),
    "strided": lambda: torch.arange(24.0).reshape(4, 6).t()[1::2, ::3],
    "expanded": lambda: torch.ones(1, 3).expand(4, 3),
    "channels-last": lambda: torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last),
    "requires-grad": lambda: torch.ones(2, requires_grad=True),
    "conj": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "neg": lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    "coo": lambda: square().to_sparse(),
    "coo-hybrid": lambda: torch.ones(2, 3, 4).to_sparse(2),
    "coo-uncoalesced": lambda: torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,)),
    "csr": lambda: square().to_sparse_csr(),
    "csc": lambda: square().to_sparse_csc(),
    "bsr": lambda: square().to_sparse_bsr((1, 1)),
    "bsc": lambda: square().to_sparse_bsc((1, 1)),
    "nested-strided": lambda: nested(torch.strided),
    "nested-jagged": lambda: nested(torch.jagged),
    "meta": hollow,
    "quantised-qint8": lambda: quantised(torch.qint8),
    "quantised-quint8": lambda: quantised(torch.quint8),
    "quantised-qint32": lambda: quantised(torch.qint32),
    "quantised-per-channel": per_channel,
    "quantised-channel-floats": channel_floats,
    "parameter": lambda: torch.nn.Parameter(square()),
    "frozen-parameter": lambda: torch.nn.Parameter(square(), requires_grad=False),
    "buffer": lambda: torch.nn.Buffer(square()),
    "parameter-with-state": attributed,
    "untyped-storage": lambda: square().untyped_storage(),
    "typed-storage": lambda: square()._typed_storage(),
    "tied": tied,
}


def parts() -> list[Any]:
    return [
        torch.device("cuda:1"), torch.device("meta"), torch.Size([2, 3]), torch.bfloat16,
        torch.strided, torch.sparse_csr, torch.per_tensor_affine, torch.Tensor,
        torch.nn.Parameter, torch.nn.Buffer, torch.get_rng_state(),
    ]  # fmt: skip


def results() -> list[Any]:
    """Named tuples, as functions that give two tensors return them."""
    return [torch.ones(2, 3).max(0), torch.ones(3).sort(), torch.linalg.qr(torch.ones(2, 2))]


CASES: dict[str, Case] = {
    **{
        f"tensor/dtype-{name}": torch_zip(lambda name=name: {name: of(getattr(torch, name))})
        for name in DTYPES
    },
    **{f"tensor/{name}": torch_zip(make) for name, make in LAYOUTS.items()},
    "tensor/parts": torch_zip(parts),
    "tensor/results": torch_zip(results),
}
