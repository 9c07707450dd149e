"""What kind of checkpoint a value is, and which program wrote it, by its shape alone.

Sources: the dictionaries that Lightning 2, timm, ultralytics 8, mmengine, accelerate and the
Trainer of transformers 5 write. A guess about the writer is a fact about the keys, no proof.
"""

from __future__ import annotations

from tensorkeep.checkpoints.index import Index
from tensorkeep.checkpoints.sections import FLAT, Part
from tensorkeep.formats.assembled import Module
from tensorkeep.formats.contents import Contents, Inert

STATE_DICT = "state_dict"
TRAINING = "training_checkpoint"
WHOLE_MODEL = "whole_model"
OPTIMIZER = "optimizer"
SCHEDULER = "scheduler"
RNG = "rng_state"
SCALER = "grad_scaler"
OTHER = "values"
# The fact of a run's folder: which version wrote it.
RUN = "tensorkeep.Run"

# Containers that say by themselves what they hold, and who writes them.
_DECLARED = {
    "torchscript": ("torchscript", "torch.jit.save"),
    "torch_package": ("package", "torch.package"),
    "pt2": ("exported_program", "torch.export.save"),
}
_SERIALISERS = {
    "bundle": "an archive of model files",
    "torch_legacy": "torch.save (the format before torch 1.6)",
    "torch_tar": "torch.save (the tar format of its first releases)",
    "npy": "numpy",
    "npz": "numpy",
    "pickle": "pickle",
    "compressed": "a compressed stream",
}

# (writer, keys that must be there, keys of which one must be there)
_WRITERS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    ("Lightning", frozenset({"state_dict", "pytorch-lightning_version"}), frozenset()),
    ("ultralytics", frozenset({"model", "train_args"}), frozenset({"ema", "version", "date"})),
    ("ultralytics", frozenset({"model", "ema", "updates"}), frozenset()),
    ("timm", frozenset({"arch", "state_dict"}), frozenset({"optimizer", "args", "version"})),
    ("mmengine", frozenset({"meta", "state_dict"}), frozenset({"message_hub", "optimizer"})),
    ("detectron2", frozenset({"model", "iteration"}), frozenset({"optimizer", "scheduler"})),
    ("Hugging Face Trainer", frozenset({"model", "trainer_state"}), frozenset()),
)
_TRAINING_KEYS = frozenset(
    (
        "args",
        "best_fitness",
        "epoch",
        "global_step",
        "hyper_parameters",
        "iteration",
        "lr_schedulers",
        "optimizer",
        "optimizer_state_dict",
        "optimizer_states",
        "scheduler",
        "step",
        "trainer_state",
    )
)


# What a file beside a checkpoint is, by the keys at its top: those that must all be there, and
# those that may. torch's Optimizer, its schedulers and GradScaler, and the Trainer of transformers.
_SIDE_FILES: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    (OPTIMIZER, frozenset({"param_groups"}), frozenset({"state", "defaults"})),
    (SCALER, frozenset({"scale", "growth_factor", "growth_interval"}), frozenset()),
    (
        RNG,
        frozenset({"python", "cpu"}),
        frozenset({"numpy", "cuda", "xla", "npu", "mlu", "musa", "xpu", "hpu", "mps", "sdaa"}),
    ),
)


def _side_file(keys: set[str]) -> str:
    for kind, needed, more in _SIDE_FILES:
        if needed <= keys and (kind == SCALER or keys <= needed | more):
            return kind
    if "last_epoch" in keys and keys & {"base_lrs", "_step_count", "_last_lr", "_schedulers"}:
        return SCHEDULER
    return ""


def kind_of(contents: Contents, index: Index, parts: dict[str, Part]) -> str:
    """One of the kinds above."""
    if contents.format in _DECLARED:
        return _DECLARED[contents.format][0]
    root = contents.lens(contents.root)
    if isinstance(root, Inert | Module):
        whole = isinstance(root, Module) or root.unread == "object"
        return WHOLE_MODEL if whole else OTHER
    side = _side_file(top_keys(index))
    if side:
        return side
    if any(part.optimizer for part in parts.values()):
        return TRAINING
    keys = top_keys(index)
    training = keys & _TRAINING_KEYS or any(part.unread for part in parts.values())
    training = training or any(len(whole.path) == 1 for whole in index.modules)
    if parts and FLAT not in parts and training:
        return TRAINING
    return STATE_DICT if index.tensors else OTHER


def top_keys(index: Index) -> set[str]:
    """The keys at the top of the file."""
    paths = [path for path, _ in index.tensors] + [path for path, _ in index.leaves]
    return {path[0] for path in paths if path and isinstance(path[0], str)}


def writer_of(contents: Contents, index: Index) -> str:
    """Who wrote the file, in words: the framework if its keys give it away, and the serialiser."""
    serialiser = _serialiser(contents)
    keys = top_keys(index)
    for name, needed, one_of in _WRITERS:
        if needed <= keys and (not one_of or one_of & keys):
            return f"{name}{_version(index, name)}, {serialiser}"
    return serialiser


def _version(index: Index, writer: str) -> str:
    key = {"Lightning": "pytorch-lightning_version", "ultralytics": "version"}.get(writer)
    for path, value in index.leaves:
        if path == (key,) and isinstance(value, str):
            return f" {value}"
    return ""


def _serialiser(contents: Contents) -> str:
    facts = contents.facts
    if RUN in facts:
        return f"{RUN} ({facts[RUN]})"
    if contents.format == "dcp":
        version = f" (version {facts['version']})" if "version" in facts else ""
        return f"torch.distributed.checkpoint{version}"
    if contents.format == "deepspeed":
        version = f" {facts['version']}" if "version" in facts else ""
        stage = f", ZeRO stage {facts['stage']}" if facts["stage"] else ""
        return f"DeepSpeed{version}{stage}, ranks: {facts['ranks']}"
    if contents.format in _DECLARED:
        return _DECLARED[contents.format][1]
    if contents.format in _SERIALISERS:
        return _SERIALISERS[contents.format]
    if contents.format.endswith("safetensors"):
        framework = contents.metadata.get("format", "")
        return f"safetensors ({framework})" if framework else "safetensors"
    if ".storage_alignment" in facts:
        return "torch.save (torch 2.8 or newer)"
    if ".format_version" in facts:
        return "torch.save (torch 2.7 or newer)"
    if "byteorder" in facts:
        return "torch.save (torch 2.1 or newer)"
    return "torch.save (torch 1.6 to 2.0, or a compatible writer)"
