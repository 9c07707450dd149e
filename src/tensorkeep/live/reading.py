"""What an opened checkpoint holds, as torch's tensors: a flat section of it, or all as nested."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from tensorkeep.checkpoints import sections
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path, name_of
from tensorkeep.checkpoints.sections import ALL, FLAT
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.errors import (
    NameCollision,
    NothingSelected,
    TensorkeepWarning,
    UnknownSection,
    Unsupported,
    escape,
)
from tensorkeep.facts import Limits
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Inert, TensorRecord
from tensorkeep.live import compounds, tensors
from tensorkeep.live.devices import HOST, Destinations, moved
from tensorkeep.live.nesting import Nest
from tensorkeep.live.saved import SavedModule
from tensorkeep.live.sharing import Sharing
from tensorkeep.progress import SILENT, Reporter

_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class How:
    """Where tensors go, the dtype of real ones (None: as in the file), and whether to map files."""

    to: Destinations = HOST
    dtype: torch.dtype | None = None
    mapped: bool = False
    limits: Limits = _LIMITS
    reporter: Reporter = SILENT


_PLAINLY = How()


def flat(
    ckpt: Checkpoint,
    section: str,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    how: How = _PLAINLY,
) -> dict[str, torch.Tensor]:
    """The tensors of `section` by their names inside it, those that the globs leave.

    Raises `SelectionError`, and `Unsupported` if one of them cannot be read.
    """
    wanted = _filter(only, skip)
    plain = {name: ref for name, ref in ckpt.select(section).items() if wanted(name)}
    built = {name: value for name, value in _compounds(ckpt, section) if wanted(name)}
    _check(ckpt, section, wanted, plain, built)
    if told := how.to.unmet([*ckpt.select(section), *built]):
        warnings.warn(escape(f"{ckpt.path}: {told}"), TensorkeepWarning, stacklevel=4)
    total = sum(ref.nbytes for ref in plain.values())
    with _told(how.reporter, total):
        found = tensors.load(
            plain, mapped=how.mapped, dtype=how.dtype, to=how.to, reporter=how.reporter
        )
        for name, value in built.items():
            found[name] = put_together(value, name, ckpt, how)
    return found


def _filter(only: Sequence[str], skip: Sequence[str]) -> Callable[[str], bool]:
    def wanted(name: str) -> bool:
        if only and not any(fnmatchcase(name, pattern) for pattern in only):
            return False
        return not any(fnmatchcase(name, pattern) for pattern in skip)

    return wanted


def _inside(ckpt: Checkpoint, section: str) -> Iterator[tuple[Path, object]]:
    """What is no plain tensor in the section, by the path inside it."""
    for path, value in ckpt.index.leaves:
        top = str(path[0]) if path else FLAT
        if section in (ALL, top) or (section == FLAT and top not in ckpt.parts):
            yield sections.inner_path(path, section), value


def _compounds(ckpt: Checkpoint, section: str) -> Iterator[tuple[str, Compound]]:
    for path, value in _inside(ckpt, section):
        if isinstance(value, Compound) and compounds.can_build(value):
            yield name_of(path), value


def _check(
    ckpt: Checkpoint,
    section: str,
    wanted: Callable[[str], bool],
    plain: Mapping[str, TensorRef],
    built: Mapping[str, Compound],
) -> None:
    for name in built.keys() & plain.keys():
        raise NameCollision(ckpt.path, expected="a name for each tensor", got=f"{name!r} twice")
    for path, value in _inside(ckpt, section):
        name = name_of(path)
        if isinstance(value, Inert) and value.unread and name not in built and wanted(name):
            raise Unsupported(
                ckpt.path,
                expected="tensors that this version reads",
                got=value.why,
                where=name,
                remedy=f"Leave it out with skip=[{name!r}].",
            )
    if not plain and not built:
        raise NothingSelected(
            ckpt.path,
            expected="at least one tensor",
            got="none",
            where=f"section {section!r}" if section else "",
            remedy="List the names with: tensorkeep inspect --tensors.",
        )


def put_together(value: Compound, name: str, ckpt: Checkpoint, how: How) -> torch.Tensor:
    """The tensor that is made of several, where it shall be. `compounds.can_build(value)`."""
    made = compounds.build(value, name, how.limits, ckpt.path)
    location = next(iter(value.parts.values())).storage.device
    real = how.dtype if value.layout != "quantized" else None
    return moved(made, how.to.of(name, location), real)


def nested(ckpt: Checkpoint, section: str | None, how: How = _PLAINLY) -> object:
    """The value that the file holds, or that of its top-level part `section`.

    Raises `UnknownSection` if it has no such part, and what reading raises.
    """
    sharing = Sharing(how.to, how.dtype)

    def tensor(record: TensorRecord, path: Path) -> object:
        return sharing.tensor(record, name_of(path))

    def compound(value: Compound, path: Path) -> object:
        if compounds.can_build(value):
            return put_together(value, name_of(path), ckpt, how)
        return compounds.bare_storage(value)

    nest = Nest(tensor, compound, ckpt, how.limits)
    value = nest.build(ckpt.contents.root, ckpt.contents.lens)
    if section not in (None, ALL):
        value = _part(value, section, ckpt.path)
    with _told(how.reporter, sharing.nbytes):
        sharing.read(mapped=how.mapped, reporter=how.reporter)
    return value


def _part(value: object, section: str | None, subject: str) -> object:
    parts = value.children if isinstance(value, SavedModule) else value
    named = {str(key): part for key, part in parts.items()} if isinstance(parts, dict) else {}
    if section in named:
        return named[section]
    raise UnknownSection(
        subject,
        expected="one of " + ", ".join(repr(name) for name in named),
        got=f"section {section!r}",
    )


@contextmanager
def _told(reporter: Reporter, total: int) -> Iterator[None]:
    """Tell the reporter when the work begins and when it is over."""
    reporter.start("loading", total)
    try:
        yield
    finally:
        reporter.finish()
