"""Allowlisted names of DeepSpeed: what its checkpoints hold beside tensors and plain values.

Source: DeepSpeed 0.19 `runtime/fp16/loss_scaler.py` (numbers in the `__dict__` of a class without
`__setstate__`), `runtime/zero/config.py` (an enum of integers), `utils/tensor_fragment.py` (a
dataclass of two numbers).
"""

from __future__ import annotations

from tensorkeep.dtypes import BY_NAME
from tensorkeep.pickles import Call, Global
from tensorkeep.scanning._allow_kinds import EffectRule, Entry, KindOf, native_kind, takes

_STAGES = 4
_SCALER_TEXT = (
    "cur_scale dynamic cur_iter last_overflow_iter scale_factor scale_window min_scale "
    "delayed_shift cur_hysteresis consecutive_hysteresis raise_error_at_min_scale dtype"
)
_NUMBERS = frozenset({"int", "float", "bool", "none"})


def _state(*names: str) -> dict[str, EffectRule]:
    """BUILD with numbers, or a dtype, under these names."""
    known = frozenset(names)

    def rule(_: Call, args: tuple[object, ...]) -> bool:
        state = args[0] if len(args) == 1 else None
        if type(state) is not dict:
            return False
        return all(type(k) is str and k in known and _number(v) for k, v in state.items())

    return {"BUILD": rule}


def _number(value: object) -> bool:
    if isinstance(value, Global):
        return value.module == "torch" and value.name in BY_NAME
    return native_kind(value) in _NUMBERS


def _stage(args: tuple[object, ...], _: KindOf) -> bool:
    return len(args) == 1 and type(args[0]) is int and 0 <= args[0] < _STAGES


def _holder(module: str, name: str, *fields: str) -> Entry:
    why = "holds numbers; nothing of it is called while it is loaded"
    makes = f"deepspeed-{name}"
    return Entry(
        module, name, why, instance=True, rule=takes(), makes=makes, effects=_state(*fields)
    )


_SCALERS = "deepspeed.runtime.fp16.loss_scaler"

ENTRIES: tuple[Entry, ...] = (
    _holder(_SCALERS, "LossScaler", *_SCALER_TEXT.split()),
    _holder(_SCALERS, "DynamicLossScaler", *_SCALER_TEXT.split()),
    _holder("deepspeed.utils.tensor_fragment", "fragment_address", "numel", "start"),
    Entry(
        "deepspeed.runtime.zero.config",
        "ZeroStageEnum",
        "looks a member of an enum up by its number",
        call=True,
        rule=_stage,
        makes="zero-stage",
        fresh=False,
        bounded=True,
    ),
)
