"""LoRA adapters merged into the weights that they belong to.

Source: PEFT 0.17, `peft/tuners/lora` and `peft/utils/save_and_load.py`: an adapter is
`adapter_model.safetensors` beside `adapter_config.json`, with names
`base_model.model.MODULE.lora_A.weight`; in a model saved with its adapters in place they are
`MODULE.lora_A.ADAPTER.weight` beside `MODULE.base_layer.weight`. The update is
B @ A * alpha / r, with alpha / sqrt(r) for rank-stabilised adapters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, ClassVar

from tensorkeep.edits.arrays import Array
from tensorkeep.edits.computed import LowRank
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.shapes import permuted, reshaped
from tensorkeep.errors import BadArgument, Damaged, UnknownTensor, Unsupported
from tensorkeep.stores._errors import mapped

CONFIG = "adapter_config.json"
_OUTER = "base_model.model."
_LARGEST_CONFIG = 1 << 20
_LORA = re.compile(r"^(?:(.*)\.)?lora_(A|B|embedding_A|embedding_B|magnitude_vector)(?:\.(.*))?$")
_SAVED = re.compile(r"\.modules_to_save\.([^.]+)\.")
_PLAIN_PATTERN = re.compile(r"[\w.]+")


@dataclass
class _Pair:
    """The two matrices of one module."""

    down: str = ""
    up: str = ""
    embedding: bool = False


@dataclass(frozen=True)
class _Config:
    """What `adapter_config.json` says, as far as merging needs it."""

    alpha: float
    rank: int = 0
    stabilised: bool = False
    transposed: bool = False
    ranks: dict[str, float] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)

    def scale(self, module: str, rank: int) -> float:
        """What the update of `module` is multiplied with."""
        alpha = _by_pattern(self.alphas, module, self.alpha)
        expected = _by_pattern(self.ranks, module, self.rank or rank)
        if expected != rank:
            raise Damaged(
                CONFIG,
                expected=f"rank {expected:g} of {module}",
                got=rank,
                remedy="Take the configuration that was saved with these weights.",
            )
        return alpha / (sqrt(rank) if self.stabilised else rank)


def _by_pattern(patterns: dict[str, float], module: str, default: float) -> float:
    for text, value in patterns.items():
        # Regular expressions out of a file could keep us busy for ever.
        if not _PLAIN_PATTERN.fullmatch(text):
            raise Unsupported(
                CONFIG,
                expected="patterns that are plain names",
                got=repr(text),
                remedy="Merge it with PEFT: merge_and_unload().",
            )
        if f".{module}".endswith(f".{text}"):
            return value
    return default


@dataclass(frozen=True)
class MergeLora:
    """Add the updates of an adapter to their weights, and drop the adapter's own tensors.

    `adapter`: a PEFT folder or its file; without, the adapters are in this checkpoint and what
    PEFT's configuration says must be said, as they are saved without it: `alpha`, and
    `fan_in_fan_out` where weights are stored transposed (GPT-2's Conv1D). `name`: of the adapter
    there; others are dropped, with a note. `prefix`: what this checkpoint has before the names of
    the model that the adapter was made for.
    """

    adapter: str = ""
    alpha: float = 0.0
    name: str = "default"
    prefix: str = ""
    fan_in_fan_out: bool = False
    op: ClassVar[str] = "merge-lora"

    def apply(self, inventory: Inventory) -> None:
        """Raises `UnknownTensor` for a weight that is missing, `Unsupported` for DoRA."""
        if not self.adapter:
            self._merge_inside(inventory)
            return
        adapter, config = inventory.other(self.adapter), read_config(self.adapter)
        prefix = self.prefix.removesuffix(".") + "." if self.prefix else ""
        pairs, rest = _pairs(adapter, "")
        for module, pair in pairs.items():
            own = module.removeprefix(_OUTER)
            name = f"{prefix}{own}.weight"
            scale = config.scale(own, adapter[pair.down].shape[0])
            inventory.put(name, _merged(inventory[name], adapter, pair, scale, config.transposed))
        for name in rest:
            own = name.removeprefix(_OUTER).replace(".base_layer.", ".")
            _replace(inventory, prefix + own, adapter[name])

    def _merge_inside(self, inventory: Inventory) -> None:
        pairs, _ = _pairs(inventory, self.name)
        if not pairs:
            inventory.notes.append(f"no LoRA adapter {self.name!r} to merge")
            return
        if not self.alpha:
            raise BadArgument(
                "merge-lora",
                expected="alpha, which lies in the adapter's configuration and not in the weights",
                got="none",
                remedy="Say alpha: lora_alpha in adapter_config.json.",
            )
        self._warn(inventory, pairs)
        config = _Config(self.alpha)
        for module, pair in pairs.items():
            base = f"{module}.base_layer.weight"
            base = base if base in inventory else f"{module}.weight"
            scale = config.scale(module, inventory[pair.down].shape[0])
            turned = self.fan_in_fan_out
            inventory.put(base, _merged(inventory[base], inventory, pair, scale, turned))
        self._tidy(inventory)

    def _warn(self, inventory: Inventory, pairs: dict[str, _Pair]) -> None:
        """Of what nothing in the file tells: other adapters, and which way square weights lie."""
        others = {_adapter_of(name) for name in inventory} - {None, self.name}
        if others:
            told = ", ".join(sorted(f"'{other}'" for other in others))
            inventory.notes.append(f"adapter {told} dropped: only {self.name!r} was merged")
        plain = [pair for pair in pairs.values() if not pair.embedding]
        shapes = [(inventory[pair.up].shape[0], inventory[pair.down].shape[1]) for pair in plain]
        if shapes and all(rows == columns for rows, columns in shapes) and not self.fan_in_fan_out:
            inventory.notes.append(
                "every merged weight is square, so that nothing shows which way it is stored: "
                "for GPT-2's Conv1D say fan_in_fan_out = true"
            )

    def _tidy(self, inventory: Inventory) -> None:
        """Leave the names that the model has without adapters."""
        saved = f".modules_to_save.{self.name}."
        trained = {name.replace(saved, ".original_module.") for name in inventory if saved in name}
        gone = [name for name in inventory if _adapter_of(name) not in (None, self.name)]
        gone += [name for name in inventory if _LORA.match(name) and name not in gone]
        gone += [name for name in inventory if name in trained]
        inventory.drop(gone)
        for old in (".base_layer.", saved, ".original_module."):
            inventory.rename(_without(old))

    def inverse(self) -> None:
        """None: what was added is not kept."""


def _without(part: str) -> Callable[[str], str]:
    return lambda name: name.replace(part, ".")


def _adapter_of(name: str) -> str | None:
    """The adapter that a tensor of a model saved with its adapters in place belongs to."""
    match = _LORA.match(name)
    if match:
        return (match[3] or "").removesuffix("weight").strip(".")
    saved = _SAVED.search(name)
    return saved[1] if saved else None


def _pairs(tensors: Inventory, adapter: str) -> tuple[dict[str, _Pair], list[str]]:
    """By module the names of its matrices; and the names of what is no LoRA's."""
    pairs: dict[str, _Pair] = {}
    rest = []
    for name in tensors:
        match = _LORA.match(name)
        if not match:
            rest.append(name)
            continue
        module, kind, ending = match[1] or "", match[2], (match[3] or "").removesuffix("weight")
        if kind == "magnitude_vector":
            raise Unsupported(
                tensors.subject,
                expected="LoRA",
                got="DoRA",
                where=name,
                remedy="Merge it with PEFT: merge_and_unload().",
            )
        if ending.strip(".") != adapter:
            continue
        pair = pairs.setdefault(module, _Pair())
        pair.embedding = kind.startswith("embedding")
        if kind.endswith("A"):
            pair.down = name
        else:
            pair.up = name
    for module, pair in pairs.items():
        if not (pair.down and pair.up):
            raise UnknownTensor(
                tensors.subject,
                expected=f"lora_A and lora_B of {module!r}",
                got="one of them",
                remedy="Save the adapter again; one matrix is not in it.",
            )
    return pairs, rest


def _merged(base: Array, of: Inventory, pair: _Pair, scale: float, transposed: bool) -> Array:
    down, up = of[pair.down], of[pair.up]
    if pair.embedding or transposed:
        # (B @ A) transposed is A transposed @ B transposed.
        down, up = permuted(up, (1, 0)), permuted(down, (1, 0))
    if len(up.shape) > 2:
        up = reshaped(up, (up.shape[0], up.numel // max(up.shape[0], 1)))
    return LowRank(base, up, down, scale)


def _replace(inventory: Inventory, name: str, array: Array) -> None:
    """A bias, or a module that was trained whole: the adapter's takes the weight's place."""
    if inventory[name].shape != array.shape:
        raise BadArgument(
            f"{name!r} of the adapter",
            expected=f"shape {list(inventory[name].shape)}",
            got=list(array.shape),
            remedy="Merge it into the model that it was made for.",
        )
    inventory.put(name, array)


def read_config(adapter: str) -> _Config:
    """The configuration beside an adapter. Raises `StoreError`, `Damaged`, `Unsupported`."""
    path = Path(adapter)
    file = (path if path.is_dir() else path.parent) / CONFIG
    with mapped(str(file)), file.open("rb") as opened:
        data = opened.read(_LARGEST_CONFIG)
    try:
        table = json.loads(data)
        return _config(table, str(file))
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Damaged(
            file,
            expected="the configuration of a LoRA adapter",
            got=error,
            remedy="Save the adapter again with PEFT's save_pretrained.",
        ) from None


def _config(table: Any, file: str) -> _Config:  # noqa: ANN401
    if not isinstance(table, dict) or str(table.get("peft_type", "LORA")).upper() != "LORA":
        raise ValueError("no LoRA" if isinstance(table, dict) else type(table).__name__)
    if table.get("use_dora"):
        raise Unsupported(
            file, expected="LoRA", got="DoRA", remedy="Merge it with PEFT: merge_and_unload()."
        )
    return _Config(
        float(table["lora_alpha"]) if "lora_alpha" in table else 8.0,
        int(table.get("r", 0)),
        bool(table.get("use_rslora")),
        bool(table.get("fan_in_fan_out")),
        dict(_numbers(table.get("rank_pattern"))),
        dict(_numbers(table.get("alpha_pattern"))),
    )


def _numbers(table: object) -> Iterator[tuple[str, float]]:
    if table and isinstance(table, dict):
        yield from ((str(key), float(value)) for key, value in table.items())
