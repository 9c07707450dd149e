"""Write the generated tables of the allowlist out of the installed torch and Python.

Run it where torch is: `python tools/make_allowlist.py`. The tables are reviewed like code, and
`tests/scanning/test_generated.py` compares them with what this would write. Nothing that is
scanned is ever imported: the tables are data.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
import pkgutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCANNING = HERE.parent / "src" / "tensorkeep" / "scanning"
WIDTH = 96

# Classes whose `__setstate__` was read (torch 2.13) and found to do no more than fill in what
# older versions did not write. A class with another one is left out until somebody reads it.
READ_SETSTATE = {
    "Module": "updates __dict__, adds empty hooks",
    "_ConvNd": "adds padding_mode",
    "AvgPool3d": "adds padding, ceil_mode, count_include_pad",
    "LogSoftmax": "adds dim",
    "Softmax": "adds dim",
    "Softmin": "adds dim",
    "MultiheadAttention": "adds _qkv_same_embed_dim",
    "TransformerDecoderLayer": "adds activation",
    "TransformerEncoderLayer": "adds activation",
    "Upsample": "adds recompute_scale_factor",
    "RNNBase": "rebuilds lists of weights: _allow_modules has a rule of its own",
}

# How to make one of each class that needs arguments, in as many ways as change its attributes.
LAYER = {"d_model": 4, "nhead": 2}
ARGUMENTS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "AdaptiveLogSoftmaxWithLoss": ((4, 6, [2]),),
    "Bilinear": ((2, 2, 2),),
    "ChannelShuffle": ((2,),),
    "CrossMapLRN2d": ((2,),),
    "Embedding": ((3, 2),),
    "EmbeddingBag": ((3, 2),),
    "Fold": ((2, 2),),
    "FractionalMaxPool2d": ((2, 1),),
    "FractionalMaxPool3d": ((2, 1),),
    "GroupNorm": ((1, 2),),
    "LPPool1d": ((2, 2),),
    "LPPool2d": ((2, 2),),
    "LPPool3d": ((2, 2),),
    "MultiheadAttention": ((4, 2),),
    "PixelShuffle": ((2,),),
    "PixelUnshuffle": ((2,),),
    "RNNBase": (("LSTM", 2, 2),),
    "RNNCellBase": ((2, 2, True, 1),),
    "Threshold": ((1.0, 1.0),),
    "TransformerDecoderLayer": ((4, 2),),
    "TransformerEncoderLayer": ((4, 2),),
    "Unflatten": ((1, (1, 2)),),
}
TRIED = ((), (2,), (2, 2), (2, 2, 2))


def module_classes() -> dict[tuple[str, str], type]:
    """The public classes of torch.nn that may be made by NEWOBJ, by where pickle finds them."""
    import torch
    from torch.nn.modules.lazy import LazyModuleMixin

    found = {}
    parallel = importlib.import_module("torch.nn.parallel.data_parallel")
    for module in (*_modules("torch.nn.modules"), parallel):
        for name, cls in vars(module).items():
            if not isinstance(cls, type) or not issubclass(cls, torch.nn.Module):
                continue
            if cls.__module__ != module.__name__ or name.startswith("_"):
                continue
            # A lazy module lives by its hooks; a class with a __new__ warns or counts.
            if issubclass(cls, LazyModuleMixin) or type(cls) is not type:
                continue
            if cls.__new__ is object.__new__ and _setstate_read(cls):
                found[cls.__module__, name] = cls
    return dict(sorted(found.items()))


def _modules(package: str) -> Iterator[Any]:
    root = importlib.import_module(package)
    yield root
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        yield importlib.import_module(info.name)


def _setstate_read(cls: type) -> bool:
    owners = {base.__name__ for base in cls.__mro__ if "__setstate__" in vars(base)}
    return owners <= READ_SETSTATE.keys()


def instances(cls: type) -> list[Any]:
    """A few instances, in every way that the arguments are known."""
    import torch

    if cls.__name__ in ("TransformerEncoder", "TransformerDecoder"):
        layer = cls.__name__.replace("coder", "coderLayer")
        return [cls(getattr(torch.nn, layer)(**LAYER), 1)]
    if cls.__name__ == "DataParallel":
        return [cls(torch.nn.Linear(2, 2))]
    if cls.__name__ == "Transformer":
        return [cls(**LAYER, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=4)]
    made = []
    for arguments in ARGUMENTS.get(cls.__name__, TRIED):
        try:
            made.append(cls(*arguments))
        except (TypeError, ValueError, IndexError, AssertionError, RuntimeError):
            continue
    assert made, f"{cls}: say how to make one in ARGUMENTS"
    return made


def module_keys() -> dict[tuple[str, str], set[str]]:
    """What an instance of each class has in its state beyond what every module has."""
    import torch

    common = set(torch.nn.Module().__getstate__())
    return {
        key: {name for one in instances(cls) for name in one.__getstate__()} - common
        for key, cls in module_classes().items()
    }


def module_names() -> set[str]:
    """What is an attribute of a class of torch.nn: state that sets it hides the class's own."""
    return {
        name
        for cls in module_classes().values()
        for name in dir(cls)
        if not name.startswith("__") and not _added(getattr(cls, name))
    }


def _added(member: Any) -> bool:
    """Whether a framework hung it on torch's class: the table must not depend on imports."""
    return str(getattr(member, "__module__", "")).startswith(
        ("transformers", "accelerate", "lightning")
    )


def wrapped(words: Iterable[str]) -> str:
    """Words on lines of one width."""
    return textwrap.fill(" ".join(words), WIDTH, break_on_hyphens=False)


def write_modules() -> str:
    """`_allow_module_names.py`."""
    import torch

    lines = [
        f"{module.removeprefix('torch.nn.')}.{name} {' '.join(sorted(keys))}".strip()
        for (module, name), keys in module_keys().items()
    ]
    rows = "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines
    )
    return f'''"""Classes of torch.nn, and the names that state must not hide. Data only.

Written by `tools/make_allowlist.py` from torch {_version(torch)}; do not edit.
"""

# A class, and what the state of its instances has beyond that of every module.
CLASSES_TEXT = """
{rows}
"""

# What is an attribute of a class of torch.nn, dunders left out (they are refused as a class).
NAMES_TEXT = """
{wrapped(sorted(module_names()))}
"""
'''


# Where enumerations are looked for: modules that a checkpoint's values come from, and whose import
# does no more than define them.
ENUM_MODULES = """
calendar enum http inspect plistlib pstats re selectors signal socket ssl uuid
torch.amp.grad_scaler torch.ao.quantization.quant_type
torch.distributed.fsdp.api
torch.export.dynamic_shapes torch.export.graph_signature torch.nn.attention.bias
torch.profiler.profiler
transformers.trainer_utils transformers.training_args transformers.utils.generic
transformers.utils.quantization_config transformers.tokenization_utils_base transformers.debug_utils
accelerate.utils.dataclasses
lightning.pytorch.trainer.states lightning.pytorch.utilities.enums lightning.pytorch.callbacks.timer
"""
_SIMPLE = (int, str, bool, type(None))


def enums() -> dict[tuple[str, str], tuple[bool, list[Any]]]:
    """Each enumeration by its name: whether it is a set of flags, and its values or its mask."""
    found = {}
    for name in ENUM_MODULES.split():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for cls in vars(module).values():
            if isinstance(cls, enum.EnumMeta) and cls.__module__ == name and len(cls):
                found[name, cls.__qualname__] = _values(cls)
    simple = {key: entry for key, entry in found.items() if entry[1] and "." not in key[1]}
    return dict(sorted(simple.items()))


def _values(cls: Any) -> tuple[bool, list[Any]]:
    if issubclass(cls, enum.Flag):
        mask = 0
        for member in cls.__members__.values():
            mask |= member.value
        return True, [mask] if mask >= 0 else []
    values = [member.value for member in cls]
    return False, values if all(type(value) in _SIMPLE for value in values) else []


def write_enums() -> str:
    """`_allow_enum_values.py`."""
    rows = []
    for (module, name), (flags, values) in enums().items():
        text = f"{module}:{name} {'&' if flags else ''}{json.dumps(values)}"
        rows.append(
            textwrap.fill(
                text, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
            )
        )
    lines = "\n".join(rows)
    python = ".".join(map(str, sys.version_info[:2]))
    return f'''"""Enumerations: `module:Class [values]`, or `&[mask]` for a set of flags. Data only.

Written by `tools/make_allowlist.py` from Python {python}; do not edit.
"""

ENUMS_TEXT = r"""
{lines}
"""
'''


def objects() -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """Plain classes of frameworks: what their instances hold, and what state must not hide."""
    import torch
    from accelerate.data_loader import SeedableRandomSampler
    from accelerate.state import PartialState
    from transformers import Seq2SeqTrainingArguments, TrainingArguments
    from transformers.trainer_pt_utils import AcceleratorConfig

    data = torch.utils.data.TensorDataset(torch.ones(2))
    made = [
        TrainingArguments("out", use_cpu=True),
        Seq2SeqTrainingArguments("out", use_cpu=True),
        AcceleratorConfig(),
        PartialState(cpu=True),
        SeedableRandomSampler(data),
        torch.utils.data.RandomSampler(data),
        torch.utils.data.SequentialSampler(data),
        data,
    ]
    made[0].device  # noqa: B018  (asking for it fills what a Trainer fills)
    found = {}
    for one in made:
        cls = type(one)
        assert cls.__getattribute__ is object.__getattribute__, cls
        assert not hasattr(cls, "__setstate__"), cls
        assert cls.__new__ is object.__new__, cls
        fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
        own = set(vars(one)) | {field.name for field in fields}
        found[cls.__module__, cls.__name__] = (
            own,
            {n for n in dir(cls) if not n.startswith("__")} - own,
        )
    return dict(sorted(found.items()))


def write_objects() -> str:
    """`_allow_framework_names.py`."""
    rows = "\n".join(
        textwrap.fill(
            f"{module}:{name} {' '.join(sorted(own))} | {' '.join(sorted(names))}",
            WIDTH,
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        for (module, name), (own, names) in objects().items()
    )
    return f'''"""Plain classes of frameworks: `module:Class` holds this | must not hide that.

Data only. Written by `tools/make_allowlist.py`; do not edit.
"""

OBJECTS_TEXT = """
{rows}
"""
'''


def _version(module: Any) -> str:
    return ".".join(module.__version__.split("+")[0].split(".")[:2])


TABLES = {
    "_allow_module_names.py": write_modules,
    "_allow_enum_values.py": write_enums,
    "_allow_framework_names.py": write_objects,
}


def main() -> None:
    """Write every table."""
    warnings.simplefilter("ignore")
    for name, write in TABLES.items():
        (SCANNING / name).write_text(write(), encoding="utf-8")
        sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
