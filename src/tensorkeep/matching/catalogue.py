"""What wrappers and layers are known to do to names.

Sources: torch (`DataParallel`, `DistributedDataParallel`, `torch.compile`, FSDP, activation
checkpointing, `swa_utils.AveragedModel`, weight norm, spectral norm and pruning), Lightning,
DeepSpeed, PEFT 0.17 and transformers' names from TensorFlow.
"""

from __future__ import annotations

import re

# Parts that a wrapper puts between others, wherever the wrapped module stands.
ANYWHERE = frozenset(
    {
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_fpw_module",
        "_checkpoint_wrapped_module",
        "base_layer",
        "modules_to_save",
    }
)
# Parts that stand before all names of a wrapped model.
LEADING = ANYWHERE | {
    "module",
    "model",
    "net",
    "network",
    "state_dict",
    "student",
    "teacher",
    "ema",
    "ema_model",
    "model_ema",
    "encoder",
    "backbone",
    "base_model",
    "generator",
    "_forward_module",
}
# The name that PEFT gives an adapter nobody named.
ADAPTER = "default"
LEAVES = {"gamma": "weight", "beta": "bias", "weight_orig": "weight"}
# Counters, none of which a forward in eval mode reads: torch itself starts the first at zero when
# a file is too old to have it (`_NormBase._load_from_state_dict`).
TOLERATED = "num_batches_tracked"
COUNTERS = frozenset({TOLERATED, "n_averaged"})
AVERAGED = re.compile(
    r"(^|[_.])(emas?|shadow|averaged?|swa|polyak|momentum)([_.]|$)", re.IGNORECASE
)
# What is left of a layer that computes its weight when it is used, and what to do about it.
COMPUTED = {
    "weight_mask": "a pruned layer's weight is weight_orig times weight_mask: call "
    "torch.nn.utils.prune.remove before saving",
    "weight_u": "a layer with spectral norm divides its weight by a norm when it is used: call "
    "torch.nn.utils.remove_spectral_norm before saving",
    "lora_A": "LoRA adapters are left out: merge them first, with edits or merge_and_unload()",
    "flat_param": "FSDP flattened these parameters into one: save with a full state dict",
    "_flat_param": "FSDP flattened these parameters into one: save with a full state dict",
}
ADAPTER_ALONE = (
    "this is an adapter without the weights that it changes: give it to the edit merge-lora "
    "(adapter = its path) of the base checkpoint"
)
# Last parts that most modules have: they say nothing about which module it is.
GENERIC = frozenset(
    {"weight", "bias", "running_mean", "running_var", "num_batches_tracked", "gamma", "beta"}
)
