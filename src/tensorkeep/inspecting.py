"""`inspect`: what a checkpoint holds, from its index alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tensorkeep.checkpoints import sections, wholes
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.folding import Node, labels_of, tree
from tensorkeep.checkpoints.index import Whole, name_of
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.checkpoints.optimizers import parameter_names
from tensorkeep.checkpoints.sections import ALL, inner_path
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.errors import SelectionError, Unsupported
from tensorkeep.facts import Anomaly, Limits, SectionInfo, TensorInfo
from tensorkeep.formats.assembled import Compound, Module
from tensorkeep.formats.contents import Inert, Items, TensorRecord
from tensorkeep.pickles import Import, describe

# JSON readers give up on deep nesting, and so would the recursion that writes it.
_DEEPEST = 100
# Bits. Python does not write longer integers in decimal, and no reader of JSON takes them.
_LONGEST = 1024
_SHORT = 120


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module that was saved as an object: its name in the file ("" for the file itself).

    `type` is the class as the file names it. `attributes` are its own settings, in words.
    """

    name: str
    type: str
    training: bool
    attributes: dict[str, object]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "name": self.name,
            "class": self.type,
            "training": self.training,
            "attributes": self.attributes,
        }


@dataclass(slots=True)
class InspectReport:
    """What is in a checkpoint. Sizes in bytes; `globals` are the names its pickles import.

    `weights` is the section that `convert` and `load` take by default, None if they would ask.
    `unread` is pairs of a name and what stands there that this version cannot read.
    `parameters`: which parameter a tensor of an optimizer's state belongs to, where that is known.
    `modules`: those saved whole, outermost first. `compounds`: sparse, quantised and other tensors
    of several parts, by name.
    """

    path: str
    format: str
    container: str
    kind: str
    writer: str
    nbytes: int
    bytes_read: int
    dead_bytes: int | None
    weights: str | None
    sections: list[SectionInfo]
    tensors: list[TensorInfo]
    metadata: dict[str, str]
    values: object
    globals: list[str]
    unread: list[tuple[str, str]]
    anomalies: list[Anomaly]
    parts: list[str]
    notes: list[str]
    trees: dict[str, list[Node]] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    modules: list[ModuleInfo] = field(default_factory=list)
    compounds: dict[str, Compound] = field(default_factory=dict)

    @property
    def tied(self) -> dict[str, list[str]]:
        """Further names of each tensor that has several."""
        groups: dict[str, list[str]] = {}
        for tensor in self.tensors:
            if tensor.tied_to is not None:
                groups.setdefault(tensor.tied_to, []).append(tensor.name)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": 1,
            "path": self.path,
            "format": self.format,
            "container": self.container,
            "kind": self.kind,
            "writer": self.writer,
            "bytes": self.nbytes,
            "weights": self.weights,
            "sections": [section.to_dict() for section in self.sections],
            "tensors": [
                {**tensor.to_dict(), "parameter": self.parameters.get(tensor.name)}
                for tensor in self.tensors
            ],
            "modules": [module.to_dict() for module in self.modules],
            "compounds": [_compound(name, one) for name, one in self.compounds.items()],
            "dead_bytes": self.dead_bytes,
            "metadata": self.metadata,
            "values": plain(self.values),
            "globals": self.globals,
            "unread": [{"name": name, "why": why} for name, why in self.unread],
            "anomalies": [a.what for a in self.anomalies],
            "parts": self.parts,
            "notes": self.notes,
            "bytes_read": self.bytes_read,
        }


def inspect(target: Source, *, limits: Limits | None = None) -> InspectReport:
    """Say what `target` holds: kind, sections, tensors, ties, values. No tensor byte is read.

    Raises `ReadError` and `StoreError`.
    """
    with open_checkpoint(target, limits=limits) as ckpt:
        weights, notes = _weights(ckpt)
        report = InspectReport(
            path=ckpt.path,
            format=ckpt.format,
            container=ckpt.contents.container,
            kind=ckpt.kind,
            writer=ckpt.writer,
            nbytes=ckpt.size,
            bytes_read=ckpt.bytes_read,
            dead_bytes=ckpt.dead_bytes,
            weights=weights,
            sections=ckpt.sections,
            tensors=[ref.info for ref in ckpt.tensors.values()],
            metadata=ckpt.metadata,
            values=ckpt.values,
            globals=_globals(ckpt),
            unread=ckpt.unread(ALL),
            anomalies=list(ckpt.contents.anomalies),
            parts=ckpt.contents.parts,
            notes=[*ckpt.contents.notes, *ckpt.index.swept.notes, *notes],
        )
        report.modules = [_module(whole) for whole in ckpt.index.modules]
        report.compounds = _compounds(ckpt)
        report.notes += wholes.notes(ckpt.index, ALL)
        report.parameters = _parameters(ckpt, weights)
        for section in _drawn(ckpt):
            report.trees[section] = tree(_labelled(ckpt, section, report.parameters))
        return report


def _drawn(ckpt: Checkpoint) -> list[str]:
    """The sections that have tensors, then those that are modules without any."""
    named = [section.name for section in ckpt.sections]
    if sections.FLAT in named:
        return named  # it shows the modules under other keys too
    whole = [str(root.path[0]) if root.path else "" for root in wholes.roots(ckpt.index, ALL)]
    return list(dict.fromkeys([*named, *whole]))


def _labelled(
    ckpt: Checkpoint, section: str, parameters: dict[str, str]
) -> Iterator[tuple[list[str], TensorRef | str]]:
    """What the tree of a section is made of: tensors, and the modules that they stand in."""
    modules = wholes.inside(ckpt.index, section)
    tensors = ckpt.select(section, strict=False)
    at = {id(ref): n for n, ref in enumerate(ckpt.tensors.values())} if modules else {}
    met = 0
    for name, ref in tensors.items():
        while met < len(modules) and modules[met].before <= at[id(ref)]:
            yield from _branch(modules[met], section)
            met += 1
        yield _labels(name, ref, parameters), ref
    for whole in modules[met:]:
        yield from _branch(whole, section)


def _branch(whole: Whole, section: str) -> Iterator[tuple[list[str], str]]:
    path = inner_path(whole.path, section)
    if path:
        yield labels_of(name_of(path)), wholes.shown_class(whole.module.type)


def _module(whole: Whole) -> ModuleInfo:
    module = whole.module
    attributes = {name: _in_short(value, whole) for name, value in module.attributes.items()}
    name = name_of(whole.path) if whole.path else ""
    return ModuleInfo(name, module.type, module.training, attributes)


def _in_short(value: object, whole: Whole) -> object:
    """An attribute on one line: what it holds may be as large as the file, and hold itself."""
    value = whole.lens(value)
    if isinstance(value, TensorRecord):
        return f"<tensor {value.dtype} {list(value.shape)}>"
    if isinstance(value, Module):
        return f"<{wholes.shown_class(value.type)}>"
    if isinstance(value, Items):
        return f"<{value.type} of {len(value.pairs)}>"
    atom = value is None or isinstance(value, bool | int | float | str | Inert)
    return plain(value) if atom else describe(value, _SHORT)


def _compounds(ckpt: Checkpoint) -> dict[str, Compound]:
    leaves = ckpt.index.leaves
    return {name_of(path): value for path, value in leaves if isinstance(value, Compound)}


def _compound(name: str, value: Compound) -> dict[str, Any]:
    parts = {
        key: {
            "dtype": part.dtype.name,
            "shape": list(part.shape),
            "storage": part.storage.key,
            "offset": part.offset,
            "stride": list(part.stride),
        }
        for key, part in value.parts.items()
    }
    dtype = value.dtype.name if value.dtype else None
    details = {key: plain(item) for key, item in value.details.items()}
    head = {"name": name, "layout": value.layout, "dtype": dtype, "shape": list(value.shape)}
    return {**head, **details, "parts": parts}


def _parameters(ckpt: Checkpoint, weights: str | None) -> dict[str, str]:
    """For each tensor of an optimizer's state whose parameter is known: that one's name."""
    known = parameter_names(
        ckpt.index, lambda: ckpt.select(weights, strict=False) if weights is not None else {}
    )
    names: dict[str, str] = {}
    if not known:
        return names
    for ref, (path, _) in zip(ckpt.tensors.values(), ckpt.index.tensors, strict=True):
        if len(path) > 2 and path[-3] == "state":
            name = known.get(path[:-3], {}).get(path[-2])
            if name is not None:
                names[ref.name] = name
    return names


def _labels(name: str, ref: TensorRef, parameters: dict[str, str]) -> list[str]:
    """Branches of the tree; optimizer state hangs under its parameter, not under a number."""
    parameter = parameters.get(ref.name)
    if parameter is None:
        return labels_of(name)
    head, _, last = name.rpartition(".")
    return [*labels_of(head)[:-1], *labels_of(parameter), last]


def _weights(ckpt: Checkpoint) -> tuple[str | None, list[str]]:
    try:
        return ckpt.choose(None)[0], []
    except (SelectionError, Unsupported) as error:
        return None, [str(error)] if ckpt.tensors or ckpt.unread(ALL) else []


def _globals(ckpt: Checkpoint) -> list[str]:
    names = set()
    for _, program in ckpt.contents.programs:
        for event in program.trace:
            if isinstance(event, Import):
                names.add(getattr(event.target, "qualified", repr(event.target)))
    return sorted(names)


def _mapping(value: dict[object, object], depth: int) -> dict[str, object]:
    """Keys as text; a number whose text is a key already (1 beside "1") shows as what it is."""
    texts = {key for key in value if isinstance(key, str)}
    made = {}
    for key, item in value.items():
        text = key if isinstance(key, str) else str(key)
        if text is not key and text in texts:
            text = f"<{type(key).__name__} {text}>"
        made[text] = plain(item, depth + 1)
    return made


def plain(value: object, depth: int = 0) -> object:
    """`value` as JSON can hold it: no NaN, no bytes, unknown objects in words."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _LONGEST else describe(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, complex):
        return repr(value)
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return _mapping(value, depth)
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Items):
        return {str(key): plain(item, depth + 1) for key, item in value.pairs}
    return repr(value) if isinstance(value, Inert) else describe(value)
