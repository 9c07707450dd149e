"""Allowlisted classes of training frameworks that are plain holders of values.

Sources: transformers 5 `training_args.py`, `trainer_pt_utils.py`; accelerate 1 `state.py`,
`data_loader.py`; torch 2.13 `utils/data/`; Lightning 2 `fabric/utilities/data.py`. None of them
has a `__setstate__`, `__new__` or `__setattr__` that unpickling would reach, so BUILD fills
`__dict__` and calls nothing. Which names may be filled is the table's word: what is an attribute
of the class and no value of its instances must not be hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tensorkeep.pickles import Call, Global
from tensorkeep.scanning._allow_framework_names import OBJECTS_TEXT
from tensorkeep.scanning._allow_kinds import Entry, items, takes
from tensorkeep.scanning._allow_table import entry_of, kind_of

_INERT = frozenset({"dtype", "qscheme", "constant", "tensor-class"})
# An object of the file that the class's own methods call, and what it has to be.
_CALLED = {"generator": ("torch-generator", "none")}
_DICTIONARIES = (
    "lightning.fabric.utilities.data",
    "lightning_fabric.utilities.data",
    "pytorch_lightning.utilities.data",
    "pytorch_lightning.utilities.parsing",
)
_CALLBACKS_TEXT = """
model_checkpoint.ModelCheckpoint early_stopping.EarlyStopping lr_monitor.LearningRateMonitor
stochastic_weight_avg.StochasticWeightAveraging timer.Timer finetuning.BaseFinetuning
gradient_accumulation_scheduler.GradientAccumulationScheduler model_summary.ModelSummary
progress.tqdm_progress.TQDMProgressBar rich_model_summary.RichModelSummary
device_stats_monitor.DeviceStatsMonitor
"""


def fault(own: frozenset[str], names: frozenset[str], _: Call, args: tuple[object, ...]) -> str:
    """The rule that this state of a plain object breaks, or ""."""
    state = args[0] if len(args) == 1 else None
    if type(state) is not dict or not all(type(key) is str for key in state):
        return "pickle/odd-effect"
    if any(key not in own and (key.startswith("__") or key in names) for key in state):
        return "pickle/shadowing-key"
    if all(_value(key, value) for key, value in state.items()):
        return ""
    return "pickle/odd-effect"


def _value(key: str, value: object) -> bool:
    if key in _CALLED:
        return kind_of(value) in _CALLED[key]
    entry = entry_of(value) if isinstance(value, Global) else None
    return entry is None or entry.reference in _INERT  # what has no entry has a finding


def _rows() -> Iterator[tuple[str, str, frozenset[str], frozenset[str]]]:
    for row in OBJECTS_TEXT.replace("\n  ", " ").split("\n"):
        if row:
            path, _, rest = row.partition(" ")
            module, _, name = path.partition(":")
            own, _, names = rest.partition("|")
            yield module, name, frozenset(own.split()), frozenset(names.split())


def _entry(module: str, name: str, own: frozenset[str], names: frozenset[str]) -> Entry:
    blame = partial(fault, own, names | {"append", "extend", "add"})
    return Entry(
        module,
        name,
        "holds values; unpickling it calls nothing of its class",
        instance=True,
        reference="plain-class",
        rule=takes(),
        makes="plain-object",
        effects={"BUILD": lambda target, args: not blame(target, args)},
        blame=blame,
    )


ENTRIES: tuple[Entry, ...] = (
    *(_entry(*row) for row in _rows()),
    *(
        Entry(
            module,
            "AttributeDict",
            "is a dictionary, filled as one",
            instance=True,
            rule=takes(),
            makes="dictionary",
            effects={"SETITEM": items, "SETITEMS": items},
        )
        for module in _DICTIONARIES
    ),
    # Lightning before 1.5 had the class of a callback as the key of its state.
    *(
        Entry(
            f"{package}.callbacks.{path.rpartition('.')[0]}",
            path.rpartition(".")[2],
            "is only mentioned: the key of a callback's state",
            reference="callback-class",
        )
        for package in ("pytorch_lightning", "lightning.pytorch")
        for path in _CALLBACKS_TEXT.split()
    ),
)
