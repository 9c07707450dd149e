"""The top-level parts of a checkpoint, and which of them are the weights.

A flat state dict is one section without a name. In a training checkpoint each top-level key
that holds tensors is a section. Names: `facts` of common training scripts, timm, Lightning,
ultralytics, mmengine, detectron2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tensorkeep.checkpoints import optimizers
from tensorkeep.checkpoints.index import Index, Path
from tensorkeep.errors import AmbiguousSection, NothingSelected, UnknownSection, Unsupported
from tensorkeep.formats.contents import Inert

FLAT = ""
ALL = "all"
_PREFERRED = ("state_dict", "model_state_dict", "model", "params")
_EMA = re.compile(
    r"(^|[_.-])(emas?|shadow|averaged?|avg|swa|polyak)([_.-]|$)|(?-i:[a-z]EMA)", re.IGNORECASE
)
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|(^|_)rng|random_state|callback|(^|_)loops?$|hyper|(^|_)args?$|config|epoch"
    r"|(^|_)loss|metric|history|(^|_)sampler|(^|_)amp($|_)|criterion|counter|(^|_)steps?$"
    r"|^(attributes|constants|traced_inputs|sample_inputs)$",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Part:
    """One top-level key: what lies below it."""

    name: str
    tensors: list[int]  # positions in Index.tensors
    direct: bool = False  # the key itself is the tensor
    optimizer: bool = False
    mixed: bool = False  # an optimizer's state lies somewhere inside, beside other tensors
    unread: str = ""  # words for the object that stands here and that this version cannot read


def parts_of(index: Index) -> dict[str, Part]:
    """Every section by name, in the order of the file. A flat file has the one named FLAT."""
    if index.modules and index.modules[0].path == ():
        return {FLAT: Part(FLAT, list(range(len(index.tensors))))}  # a module is one state dict
    if index.tensors and not index.leaves and all(len(path) == 1 for path, _ in index.tensors):
        return {FLAT: Part(FLAT, list(range(len(index.tensors))))}
    parts = _by_key(index)
    if not _is_flat(parts):
        return parts
    # What a module's own state dict does not hold, an optimizer or EMA beside it, stays apart.
    own = {name: p for name, p in parts.items() if not p.direct and p.tensors and "." not in name}
    apart = {at for part in own.values() for at in part.tensors}
    return {FLAT: Part(FLAT, [at for at in range(len(index.tensors)) if at not in apart]), **own}


def _by_key(index: Index) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for at, (path, _) in enumerate(index.tensors):
        name = str(path[0]) if path else FLAT
        part = parts.setdefault(name, Part(name, []))
        part.tensors.append(at)
        part.direct = part.direct or len(path) == 1
    _mark_optimizers(parts, index)
    for path, value in index.leaves:
        if isinstance(value, Inert) and value.unread == "object" and len(path) <= 1:
            name = str(path[0]) if path else FLAT
            parts.setdefault(name, Part(name, [])).unread = value.why
    return parts


def _mark_optimizers(parts: dict[str, Part], index: Index) -> None:
    """A dict with `param_groups` in it is an optimizer's, at whatever depth it lies."""
    roots = optimizers.roots(index)
    for part in parts.values() if roots else ():
        paths = [index.tensors[at][0] for at in part.tensors]
        inside = sum(any(path[:n] in roots for n in range(len(path))) for path in paths)
        part.optimizer = 0 < inside == len(paths)
        part.mixed = 0 < inside < len(paths)


def _is_flat(parts: dict[str, Part]) -> bool:
    """Only tensors at the top, or names there that are those of a module's own state dict."""
    if any(_dotted(part) for part in parts.values()):
        return True
    return bool(parts) and all(part.direct and not part.unread for part in parts.values())


def _dotted(part: Part) -> bool:
    """Names with dots are those of a module's own state dict."""
    return part.direct and "." in part.name


def candidates(parts: dict[str, Part]) -> tuple[list[str], list[str]]:
    """Sections that could be the weights, and those that could be averaged weights (EMA)."""
    plain: list[str] = []
    averaged: list[str] = []
    for name, part in parts.items():
        if part.optimizer or (part.direct and name != FLAT) or _NOT_WEIGHTS.search(name):
            continue
        (averaged if _EMA.search(name) else plain).append(name)
    return plain, averaged


def choose(
    parts: dict[str, Part], section: str | None, subject: str, arrays: int = 0
) -> tuple[str, list[str]]:
    """The section meant by `section` (None: the weights) and notes for the user.

    `arrays`: how many arrays of numpy's the file holds, which are no tensors.

    Raises `UnknownSection`, `AmbiguousSection`, `NothingSelected`, and `Unsupported` when the
    weights are there and this version cannot read them.
    """
    if section is not None:
        return _named(parts, section, subject), []
    plain, averaged = candidates(parts)
    name, notes = _pick(plain, averaged, subject)
    if name is None:
        name = _only_loose(parts, subject, arrays)
    if parts[name].mixed:
        raise AmbiguousSection(
            subject,
            expected="a section of weights alone",
            got=f"section {name!r} with an optimizer's state in it",
            remedy=f"Take what you want with --section {name} and --only or --skip.",
        )
    if parts[name].unread and not parts[name].tensors:
        raise Unsupported(
            subject,
            expected="a state dict",
            got=(f"section {name!r}: " if name else "") + parts[name].unread,
            remedy="Load it where its class is at hand and save its state_dict() instead.",
        )
    return name, notes


def _named(parts: dict[str, Part], section: str, subject: str) -> str:
    if section == ALL or section in parts:
        return section
    raise UnknownSection(
        subject,
        expected="one of " + ", ".join(repr(name) for name in [*parts, ALL]),
        got=f"--section {section!r}",
    )


def _pick(plain: list[str], averaged: list[str], subject: str) -> tuple[str | None, list[str]]:
    if FLAT in plain:
        return FLAT, []
    if len(plain) == 1:
        left = f"; the averaged weights in {averaged[0]!r} were not used" if averaged else ""
        return plain[0], [f"section {plain[0]!r} taken as the weights{left}"] if plain[0] else []
    for name in _PREFERRED:
        if name in plain:
            return name, [f"section {name!r} taken as the weights"]
    if plain:
        raise _ambiguous(plain, subject)
    if len(averaged) == 1:
        return averaged[0], [f"only averaged (EMA) weights are here: {averaged[0]!r} taken"]
    if averaged:
        raise _ambiguous(averaged, subject)
    return None, []


def _only_loose(parts: dict[str, Part], subject: str, arrays: int) -> str:
    if not parts:
        raise NothingSelected(
            subject,
            expected="tensors",
            got=f"none, and {arrays} numpy arrays" if arrays else "none in the file",
            remedy="Take them with tk.load(path, nested=True), turn each into a tensor with "
            "torch.from_numpy, and save that."
            if arrays
            else "See what is in it: tensorkeep inspect.",
        )
    raise AmbiguousSection(
        subject,
        expected="a section of weights",
        got=", ".join(repr(name) for name in parts),
        remedy="Name the one you mean with --section, or take everything with --section all.",
    )


def _ambiguous(names: list[str], subject: str) -> AmbiguousSection:
    return AmbiguousSection(
        subject,
        expected="one section of weights",
        got=" and ".join(repr(name) for name in names),
        remedy=f"Name one, as in --section {names[0]}.",
    )


def inner_path(path: Path, section: str) -> Path:
    """The path below its section."""
    return path if section in (FLAT, ALL) else path[1:]
