"""`load`: the tensors of a checkpoint, in memory and ready for use; nothing of the file is run."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, overload

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.dtypes import find
from tensorkeep.errors import BadArgument, MissingExtra, NotSafeWarning, escape
from tensorkeep.facts import Limits
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.scanning import judge

if TYPE_CHECKING:
    import torch

    from tensorkeep.checkpoints.tensor import TensorRef
    from tensorkeep.live import reading
    from tensorkeep.live.devices import Device, MapLocation

_log = logging.getLogger("tensorkeep")


@overload
def load(
    source: Source,
    *,
    device: Device = "cpu",
    map_location: MapLocation | None = None,
    device_map: Mapping[str, Device] | None = None,
    section: str | None = None,
    nested: Literal[False] = False,
    mmap: bool = False,
    dtype: str | torch.dtype | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> dict[str, torch.Tensor]: ...


@overload
def load(
    source: Source,
    *,
    device: Device = "cpu",
    map_location: MapLocation | None = None,
    device_map: Mapping[str, Device] | None = None,
    section: str | None = None,
    nested: bool,
    mmap: bool = False,
    dtype: str | torch.dtype | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> object: ...


def load(
    source: Source,
    *,
    device: Device = "cpu",
    map_location: MapLocation | None = None,
    device_map: Mapping[str, Device] | None = None,
    section: str | None = None,
    nested: bool = False,
    mmap: bool = False,
    dtype: str | torch.dtype | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> object:
    """The weights in `source` as a dict from names to tensors; on the CPU unless told otherwise.

    `source`: whatever `open` takes. `device`: where tensors go, whatever device the file names;
    `device_map`: where those below a prefix of names go, the longest that fits ("" fits all);
    `map_location`: as `torch.load` takes it. `section`: a top-level part, "all", or None for the
    weights. `mmap`: tensors lie in a private mapping of the file, not in memory: nothing is read
    before it is used, and what is written to them stays in this process. Packed files, streams
    and odd addresses are read instead. `dtype`: what real floating point tensors become.
    `only`, `skip`: globs over names inside the section.

    `nested`: the value of the file, or of its `section`, nested as `torch.load` would nest it: the
    same keys, lists, parameters and shared storages; what only running the file would make is
    an inert value that prints well.

    Flat, each tensor is contiguous and owns exactly its bytes; tied ones are tied again. Nothing
    of the file is run; one that is not safe is loaded with a `NotSafeWarning`. Raises `ReadError`,
    `StoreError`, `SelectionError`, `BadArgument`, and `MissingExtra` where there is no torch.
    """
    require_torch()
    from tensorkeep.live import reading
    from tensorkeep.live.devices import Destinations

    check_globs(only, skip)
    if nested and (only or skip):
        raise BadArgument(
            "only, skip",
            expected="a flat dict of tensors to choose from",
            got="nested=True",
            remedy="Load without nested=True, or take what you want out of the result.",
        )
    to = Destinations(device, device_map=device_map, map_location=map_location)
    to.require()
    how = reading.How(to, wanted_dtype(dtype), mmap, limits or Limits(), reporter)
    with no_collection():
        return _load(source, section, nested, only, skip, how)


def _load(
    source: Source,
    section: str | None,
    nested: bool,
    only: Sequence[str],
    skip: Sequence[str],
    how: reading.How,
) -> object:
    """A function of its own: the index is gone when the collector goes on, and is not looked at."""
    from tensorkeep.live import reading

    with open_checkpoint(source, limits=how.limits) as ckpt:
        warn_unless_safe(ckpt, 4)
        if nested:
            return reading.nested(ckpt, section, how)
        return reading.flat(ckpt, choose(ckpt, section), only, skip, how)


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's collector of cycles from looking at everything that is being made.

    An index of many tensors is hundreds of thousands of objects that all stay: walking them time
    and again took as long as making them.
    """
    was_on = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if was_on:
            gc.enable()


def tensor_of(ref: TensorRef) -> torch.Tensor:
    """One tensor, contiguous, on the CPU, in memory of its own; what `TensorRef.torch()` gives."""
    require_torch()
    from tensorkeep.live import tensors

    return tensors.load({ref.name: ref})[ref.name]


def require_torch() -> None:
    """Raises `MissingExtra` where torch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "tensors in memory",
            expected="torch",
            got="a Python without it",
            remedy="Install it with: pip install 'tensorkeep[torch]'",
        ) from error


def warn_unless_safe(ckpt: Checkpoint, level: int = 3) -> None:
    """Say of a file that is not safe what it is: nothing of it was run, and nothing will be.

    `level`: how many calls up the one stands that is warned, this one included.
    """
    verdict, findings = judge(ckpt)
    if verdict != "safe":
        why = f": {findings[0].what}" if findings else ""
        text = f"{ckpt.path} is {verdict}{why}; nothing of it was run"
        warnings.warn(escape(text), NotSafeWarning, stacklevel=level)


def wanted_dtype(dtype: object) -> torch.dtype | None:
    """The dtype that floating point tensors shall have. Raises `BadArgument`."""
    import torch

    known = find(str(dtype)) if isinstance(dtype, str | torch.dtype) else None
    if dtype is None:
        return None
    if known is None or not known.is_floating:
        raise BadArgument(
            "dtype",
            expected="a floating point dtype such as float32, float16, bfloat16",
            got=repr(dtype),
        )
    found = getattr(torch, known.name)
    assert isinstance(found, torch.dtype)
    return found


def check_globs(only: object, skip: object) -> None:
    """A single string would be taken letter by letter. Raises `BadArgument`."""
    for name, given in (("only", only), ("skip", skip)):
        fine = isinstance(given, Collection) and not isinstance(given, str | bytes)
        if not fine or not all(isinstance(each, str) for each in given):  # type: ignore[attr-defined]
            raise BadArgument(name, expected="a list of globs", got=repr(given))


def choose(ckpt: Checkpoint, section: str | None) -> str:
    """The section meant; the weights if none is named. What was decided goes to the log."""
    name, notes = ckpt.choose(section)
    for note in notes:
        _log.info("%s: %s", ckpt.path, note)
    return name
