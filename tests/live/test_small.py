"""Many small tensors side by side: the same values, each in a storage of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import tensorkeep as tk
from tensorkeep.live import small

_KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8]
_KINDS += [torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64]
_SHAPES = [(), (1,), (3,), (2, 1, 5), (4, 4), (7, 9), (0, 3), (1500,)]


def _tensor(kind: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bits that the dtype can have."""
    if kind is torch.bool:
        return torch.arange(seed, seed + torch.Size(shape).numel()).remainder(3).eq(0).view(shape)
    length = torch.Size(shape).numel() * kind.itemsize
    noise = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (length,), dtype=torch.uint8, generator=noise)
    return raw.view(kind).view(shape)


def _bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def _check(path: Path, state: dict[str, torch.Tensor]) -> None:
    found = tk.load(path)
    assert list(found) == list(torch.load(path) if path.suffix == ".pth" else found)
    assert found.keys() == state.keys()
    for name, tensor in found.items():
        wanted = state[name]
        assert (tensor.dtype, tensor.shape) == (wanted.dtype, wanted.shape)
        assert tensor.stride() == wanted.contiguous().stride() and tensor._base is None
        assert tensor.untyped_storage().nbytes() == wanted.numel() * wanted.itemsize
        assert tensor.storage_offset() == 0 and _bits(tensor) == _bits(wanted)
    assert len({t.data_ptr() for t in found.values() if t.numel()}) == len(
        [t for t in found.values() if t.numel()]
    )


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@settings(max_examples=15, deadline=None)
@given(
    chosen=st.lists(
        st.tuples(st.sampled_from(_KINDS), st.sampled_from(_SHAPES)), min_size=1, max_size=40
    ),
    transposed=st.booleans(),
)
def test_bits_shapes_and_storages(
    tmp_path_factory: pytest.TempPathFactory,
    ending: str,
    chosen: list[tuple[torch.dtype, tuple[int, ...]]],
    transposed: bool,
) -> None:
    small_least = small.LEAST
    small.LEAST = 2
    try:
        state = {f"t{i}": _tensor(kind, shape, i) for i, (kind, shape) in enumerate(chosen)}
        if transposed and ending == ".pth":
            state["turned"] = torch.arange(12.0).view(3, 4).t()
        path = tmp_path_factory.mktemp("small") / f"small{ending}"
        save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
        _check(path, state)
    finally:
        small.LEAST = small_least


def test_small_ones_between_large_ones_are_not_read_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "LEAST", 2)
    state = {}
    for i in range(6):
        state[f"a{i}.large"] = torch.full((40_000,), float(i))
        state[f"a{i}.small"] = torch.full((3,), float(i))
    torch.save(state, tmp_path / "mixed.pth")
    with tk.open(tmp_path / "mixed.pth") as ckpt:
        assert small.load(dict(ckpt.tensors)) == {}
    _check(tmp_path / "mixed.pth", state)


def test_many_are_made_together(tmp_path: Path) -> None:
    state = {f"layers.{i}.scale": torch.full((4, 4), float(i)) for i in range(2 * small.LEAST)}
    torch.save(state, tmp_path / "many.pth")
    with tk.open(tmp_path / "many.pth") as ckpt:
        assert len(small.load(dict(ckpt.tensors))) == len(state)
    _check(tmp_path / "many.pth", state)


def test_a_batch_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "_AT_ONCE", 4096)
    state = {f"t{i}": torch.full((8,), i, dtype=torch.int64) for i in range(2 * small.LEAST)}
    save_file(state, tmp_path / "many.safetensors")
    _check(tmp_path / "many.safetensors", state)
