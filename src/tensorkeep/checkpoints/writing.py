"""Writing a checkpoint: one file, or parts with an index; whole under its name or not at all.

File names and the index: what `transformers` 5 and `huggingface_hub` read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tensorkeep.checkpoints.streaming import Output, Stream
from tensorkeep.errors import BadArgument
from tensorkeep.formats import safetensors, safetensors_layout, torch_zip, torch_zip_layout
from tensorkeep.formats.layout import Entry, Layout, Request
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.stores import Sink

Versions = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Target:
    """A format that can be written: how, what it cannot hold, and its files' names in a folder.

    `holds_values`: whether one file of it holds nested values beside tensors.
    """

    name: str
    layout: Callable[[Request], Layout]
    problem: Callable[[Entry], str]
    suffixes: tuple[str, ...]
    stem: str
    suffix: str
    holds_versions: bool
    holds_values: bool

    @property
    def single(self) -> str:
        """Name of the only file in a folder."""
        return self.stem + self.suffix

    @property
    def index(self) -> str:
        """Name of the index file."""
        return f"{self.single}.index.json"

    def part(self, number: int, total: int) -> str:
        """Name of a numbered part, counted from 1."""
        return f"{self.stem}-{number:05d}-of-{total:05d}{self.suffix}"


TARGETS: tuple[Target, ...] = (
    Target(
        "safetensors",
        safetensors_layout.layout,
        safetensors_layout.problem,
        safetensors.SUFFIXES,
        "model",
        ".safetensors",
        holds_versions=False,
        holds_values=False,
    ),
    Target(
        "torch_zip",
        torch_zip_layout.layout,
        torch_zip_layout.problem,
        torch_zip.SUFFIXES,
        "pytorch_model",
        ".bin",
        holds_versions=True,
        holds_values=True,
    ),
)
_ALIASES = {"torch": "torch_zip", "pth": "torch_zip", "pt": "torch_zip", "bin": "torch_zip"}


def target_named(name: str) -> Target:
    """The target that users mean by `name`. Raises `BadArgument`."""
    plain = _ALIASES.get(name.lower().lstrip("."), name.lower().lstrip("."))
    for target in TARGETS:
        if target.name == plain:
            return target
    known = ", ".join([*(target.name for target in TARGETS), *_ALIASES])
    raise BadArgument("--to", expected=f"one of {known}", got=repr(name))


def target_for_suffix(name: str) -> Target | None:
    """The target that a file name asks for by its ending, or None."""
    lower = name.lower()
    return next((t for t in TARGETS if lower.endswith(t.suffixes)), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written: tensors in order, further names of them, text, versions.

    `tree`: the value of the file where it is more than a dict of `names`; see `layout.Named`.
    """

    outputs: Sequence[Output]
    names: Sequence[str]
    aliases: Mapping[str, str]
    metadata: Mapping[str, str]
    versions: Versions | None = None
    tree: object = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, tied ones once."""
        return sum(output.nbytes for output in self.outputs)

    def request(self) -> Request:
        """The plan as a layout wants it."""
        entries = [output.entry for output in self.outputs]
        rest = (self.aliases, self.metadata, self.versions, self.tree)
        return Request(entries, self.names, *rest)


def write(plan: Plan, layout: Layout, sink: Sink, reporter: Reporter = SILENT) -> None:
    """Fill `sink`; the caller commits it."""
    Stream(plan.outputs, layout, sink, reporter).run()


def shards(plan: Plan, size: int) -> list[Plan]:
    """`plan` cut into parts of at most `size` bytes of tensors (a larger tensor has its own).

    What is made together stays together.
    """
    groups: list[list[Output]] = [[]]
    filled = 0
    for unit in _units(plan.outputs):
        nbytes = sum(output.nbytes for output in unit)
        if groups[-1] and filled + nbytes > size:
            groups.append([])
            filled = 0
        groups[-1] += unit
        filled += nbytes
    return [_part(plan, group) for group in groups]


def _units(outputs: Sequence[Output]) -> Iterable[list[Output]]:
    """Outputs that may not be parted, in the order of the first of each."""
    units: dict[int, list[Output]] = {}
    for output in outputs:
        units.setdefault(id(output.together or output), []).append(output)
    return units.values()


def _part(plan: Plan, group: list[Output]) -> Plan:
    inside = {output.name for output in group}
    aliases = {alias: kept for alias, kept in plan.aliases.items() if kept in inside}
    names = [name for name in plan.names if name in inside or name in aliases]
    return replace(plan, outputs=group, names=names, aliases=aliases)


def index_bytes(plan: Plan, parts: Mapping[str, Plan], *, aliases: bool) -> bytes:
    """The index file. safetensors parts hold a tied tensor once, so the index names it once."""
    where = {o.name: part for part, inside in parts.items() for o in inside.outputs}
    if aliases:
        where |= {alias: where[kept] for alias, kept in plan.aliases.items()}
    weight_map = {name: where[name] for name in plan.names if name in where}
    index = {"metadata": {"total_size": plan.nbytes}, "weight_map": weight_map}
    return (json.dumps(index, indent=2) + "\n").encode("utf-8")
