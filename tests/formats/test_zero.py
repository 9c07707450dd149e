"""DeepSpeed folders by their layout; what DeepSpeed 0.19.8 itself wrote is in tests/corpus."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import Damaged, TensorkeepError, Unsupported, Unwritable

SHAPES = [{"a.weight": (7, 5), "a.bias": (5,), "none": (0, 2)}, {"b.weight": (3, 3, 2), "b.x": ()}]


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator)
        for group in SHAPES
        for name, shape in group.items()
    }


def flat(group, tensors, gaps):
    parts = []
    for name, gap in zip(group, gaps, strict=True):
        parts += [tensors[name].reshape(-1), torch.full((gap,), torch.nan)]
    return torch.cat(parts)


def shares(tensor, ranks):
    """Stage 3: a parameter in equal runs, the last ones padded."""
    share = -(-tensor.numel() // ranks)
    padded = torch.cat([tensor.reshape(-1), tensor.new_full((share * ranks - tensor.numel(),), 9)])
    return padded.split(share) if share else [padded] * ranks


def partitions(stage, ranks, tensors, gaps):
    """For each rank its vectors, one for each group."""
    if stage == 3:
        return [
            [torch.cat([shares(tensors[n], ranks)[rank] for n in group]) for group in SHAPES]
            for rank in range(ranks)
        ]
    made = [[] for _ in range(ranks)]
    for number, group in enumerate(SHAPES):
        vector = flat(group, tensors, gaps[number] if gaps else [0] * len(group))
        share = -(-vector.numel() // (2 * ranks)) * 2
        for rank in range(ranks):
            made[rank].append(vector[rank * share : (rank + 1) * share].clone())
    return made


def module(tensors, stage):
    held = OrderedDict((name, value.bfloat16()) for name, value in tensors.items())
    held["tied.weight"] = held["a.weight"]
    if stage == 3:
        held = OrderedDict((name, torch.zeros(0, dtype=torch.bfloat16)) for name in held)
    held["seen"] = torch.arange(3)
    return held


def write(folder, stage, ranks, *, gaps=None, shared=True, mp=1, frozen=None):
    """A checkpoint folder as DeepSpeed lays it out; gives the weights."""
    tensors = weights()
    shapes = [OrderedDict((n, torch.Size(s)) for n, s in group.items()) for group in SHAPES]
    common = {
        "module": module(tensors, stage),
        "buffer_names": ["seen"],
        "param_shapes": shapes,
        "frozen_param_shapes": None,
        "shared_params": {"tied.weight": "a.weight"} if shared else {},
        "ds_version": "0.19.8",
        "epoch": 3,
    }
    folder.mkdir()
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    for rank, vectors in enumerate(partitions(stage, ranks, tensors, gaps)):
        state = {
            "zero_stage": stage,
            "partition_count": ranks if stage == 3 else [ranks] * len(SHAPES),
            key: vectors,
            "param_alignment_paddings": gaps,
        }
        fragments = dict(common)
        if frozen is not None:
            fragments["frozen_param_shapes"] = OrderedDict(fixed=frozen.shape)
            fragments["frozen_param_fragments"] = {"fixed": shares(frozen, ranks)[rank]}
        for part in range(mp):
            end = f"pp_rank_{rank}_mp_rank_{part:02}"
            torch.save({"optimizer_state_dict": state}, folder / f"zero_{end}_optim_states.pt")
            if stage == 3:
                torch.save(fragments, folder / f"zero_{end}_model_states.pt")
            else:
                torch.save(common, folder / f"mp_rank_{part:02}_model_states.pt")
    return tensors


def agree(path, tensors, bits):
    with tk.open(path) as ckpt:
        for name, tensor in tensors.items():
            ref = ckpt[f"model.{name}"]
            assert (ref.dtype, ref.shape) == (str(tensor.dtype)[6:], tuple(tensor.shape)), name
            assert ref.read() == bits(tensor), name


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_weights_are_put_together(stage, ranks, tmp_path, bits):
    path = tmp_path / "global_step7"
    tensors = write(path, stage, ranks)
    tensors["tied.weight"] = tensors["a.weight"]
    agree(path, tensors | {"seen": torch.arange(3)}, bits)
    report = tk.inspect(path)
    assert (report.format, report.kind, report.weights) == (
        "deepspeed",
        "training_checkpoint",
        "model",
    )
    assert report.writer == f"DeepSpeed 0.19.8, ZeRO stage {stage}, ranks: {ranks}"
    assert report.values["epoch"] == 3
    assert ("module" in [section.name for section in report.sections]) == (stage != 3)
    assert tk.verify(path).damaged == []
    assert [file.format for file in tk.scan(path).files] == ["deepspeed"]
    assert tk.scan(path).verdict == "safe"


def test_paddings_ties_by_place_and_a_folder_above(tmp_path, bits):
    gaps = [[1, 3, 0], [0, 2]]
    tensors = write(tmp_path / "global_step7", 2, 3, gaps=gaps, shared=False)
    (tmp_path / "latest").write_text("global_step7")
    agree(tmp_path, tensors | {"tied.weight": tensors["a.weight"]}, bits)
    out = tmp_path / "out.safetensors"
    report = tk.convert(tmp_path, out, verify=True)
    assert report.tied == {"tied.weight": "a.weight"}
    assert report.section == "model"


def test_what_is_frozen(tmp_path, bits):
    frozen = torch.randn(3, 3).bfloat16()
    tensors = write(tmp_path / "step", 3, 2, frozen=frozen)
    agree(tmp_path / "step", tensors | {"fixed": frozen}, bits)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_rank_that_is_missing(stage, tmp_path):
    path = tmp_path / "step"
    write(path, stage, 3)
    (path / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    report = tk.inspect(path)
    assert [name for name, _ in report.unread] == ["model"]
    assert any("ranks" in note for note in report.notes)
    with pytest.raises(TensorkeepError):
        tk.convert(path, tmp_path / "out.safetensors", section="model")


def test_model_parallel_weights_are_shown_and_not_put_together(tmp_path):
    path = tmp_path / "step"
    write(path, 1, 2, mp=2)
    report = tk.inspect(path)
    names = [section.name for section in report.sections]
    assert "module_mp_rank_00" in names
    assert "module_mp_rank_01" in names
    assert any("model parallel" in note for note in report.notes)
    with pytest.raises((Unwritable, Unsupported, TensorkeepError)):
        tk.convert(path, tmp_path / "out.safetensors")


def test_partitions_that_are_too_short(tmp_path):
    path = tmp_path / "step"
    write(path, 2, 2)
    file = path / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    state = torch.load(file)
    vectors = state["optimizer_state_dict"]["single_partition_of_fp32_groups"]
    vectors[0] = vectors[0][:3].clone()
    torch.save(state, file)
    assert [name for name, _ in tk.inspect(path).unread] == ["model"]


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("echo tensorkeep",)


def test_one_evil_file_makes_the_folder_dangerous(tmp_path):
    path = tmp_path / "step"
    write(path, 2, 2)
    evil = path / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    torch.save({"optimizer_state_dict": Evil()}, evil)
    report = tk.scan(tmp_path)
    assert report.verdict == "dangerous"
    (found,) = [found for found in report.findings if found.severity == "dangerous"]
    assert found.member.startswith(evil.name)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "step"
    write(path, 2, 2)
    file = path / "mp_rank_00_model_states.pt"
    file.write_bytes(file.read_bytes()[:-100])
    assert tk.scan(path).verdict == "unknown"
    with pytest.raises(Damaged):
        tk.open(path)
