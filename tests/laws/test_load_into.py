"""Whatever wrappers and dtypes a model was saved with: loaded into its like, it is the same."""

from __future__ import annotations

import io

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tensorkeep as tk

WRAPPERS = ("module", "_orig_mod", "model", "net", "_forward_module", "_fsdp_wrapped_module")
sizes = st.lists(st.integers(1, 5), min_size=2, max_size=5)


def build(widths: list[int], *, norm: bool, dtype: torch.dtype = torch.float32) -> nn.Module:
    parts: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        parts += [nn.Linear(a, b), nn.BatchNorm1d(b) if norm else nn.LayerNorm(b)]
    return nn.ModuleDict({"first": nn.Linear(2, 3), "stack": nn.Sequential(*parts)}).to(dtype)


@settings(max_examples=40, deadline=None)
@given(
    widths=sizes,
    norm=st.booleans(),
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    way=st.sampled_from(["real", "assign", "empty", "mapped"]),
    file=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    nested=st.booleans(),
)
def test_a_model_is_what_was_saved(
    widths: list[int],
    norm: bool,
    wrappers: list[str],
    way: str,
    file: torch.dtype,
    nested: bool,
) -> None:
    saved = build(widths, norm=norm, dtype=file)
    prefix = "".join(f"{name}." for name in wrappers)
    state = {prefix + name: tensor for name, tensor in saved.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"model": state, "step": 3} if nested else state, buffer)
    if way in ("empty", "mapped"):
        with tk.empty_weights():
            model = build(widths, norm=norm)
    else:
        model = build(widths, norm=norm)
    before = [id(parameter) for parameter in model.parameters()]
    report = tk.load_into(model, buffer, assign=way == "assign", mmap=way == "mapped")
    assert report.fits
    want = saved.float().state_dict()
    assert all(torch.equal(want[name], tensor) for name, tensor in model.state_dict().items())
    assert len(report.cast) == (0 if file == torch.float32 else _floats(model))
    assert (before == [id(parameter) for parameter in model.parameters()]) == (way == "real")


def _floats(model: nn.Module) -> int:
    return sum(tensor.is_floating_point() for tensor in model.state_dict().values())
