"""What a guarded program gets where it asks torch to load: our reader, on one open handle.

What is judged is what is loaded: the file is opened once, its pickles are read once, and objects
are made out of what was read.
"""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import open_checkpoint
from tensorkeep.errors import (
    NotSafeWarning,
    ReadError,
    StoreError,
    TensorkeepError,
    Unsupported,
    Untrusted,
    escape,
)
from tensorkeep.facts import Finding, Verdict
from tensorkeep.live import assembling, hooks
from tensorkeep.live.devices import Destinations
from tensorkeep.live.guard_log import GuardEvent, shown, was_run
from tensorkeep.live.held import Held, current
from tensorkeep.live.reading import How
from tensorkeep.live.refusing import Refused, Unloadable
from tensorkeep.live.tails import from_here
from tensorkeep.live.trusting import Trust
from tensorkeep.scanning import judge
from tensorkeep.scanning._allow_dcp import ENTRIES

_MOST_FINDINGS = 5
_METADATA = frozenset(f"{entry.module}.{entry.name}" for entry in ENTRIES)


@dataclass(slots=True)
class _Met:
    """A load under way: what its event will say; not `told`: another event does."""

    held: Held
    path: str
    verdict: Verdict | str = ""
    findings: list[str] = field(default_factory=list)
    inert: list[str] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)
    told: bool = True

    def judged(self, verdict: Verdict, findings: list[Finding]) -> None:
        self.verdict = verdict
        self.findings = [found.what for found in findings[:_MOST_FINDINGS]]

    def refuse(self, expected: str, remedy: str) -> NoReturn:
        why = f": {self.findings[0]}" if self.findings else ""
        raise Refused(self.path, expected=expected, got=f"{self.verdict}{why}", remedy=remedy)


def load(f: Any, map_location: Any, pickle_module: Any, **given: Any) -> object:  # noqa: ANN401
    """In place of `torch.load`: nothing of the file is run.

    `pickle_module`, `weights_only` and the arguments for a pickle module make no difference.
    """
    held = current()
    if held is None:
        return hooks.ORIGINALS["torch.serialization.load"](f, map_location, pickle_module, **given)
    with _noted(held, "torch.load", f) as met, _opened(f) as file:
        found = _load(met, file, map_location, mapped=bool(given.get("mmap")))
        if not isinstance(found, _Script):
            return found
        met.told = False
    # As torch does, with the same bytes.
    return _scripted(held, f, found.data, map_location, None, False)


@dataclass(slots=True)
class _Script:
    """The bytes of a TorchScript archive."""

    data: bytes


def _load(met: _Met, file: Any, map_location: object, *, mapped: bool) -> object:  # noqa: ANN401
    with open_checkpoint(file) as ckpt:
        if ckpt.format == "torchscript":
            file.seek(0)  # looking at it moved where it stands
            return _Script(file.read())
        contents, trust = ckpt.contents, met.held.trust
        how = How(_destinations(map_location, ckpt), mapped=mapped)
        asked = assembling.ask(ckpt, contents.root, contents.lens, trust, how.limits)
        strict = met.held.require == "safe"
        met.judged(*assembling.weigh(ckpt, asked, audit=strict))
        if strict and met.verdict != "safe":
            met.refuse("a file that a scan calls safe", "See what it would do: tensorkeep scan.")
        with _on_the_host():
            value, nest = assembling.make(ckpt, contents.root, contents.lens, trust, how)
        ckpt.check_unchanged()
        met.inert, met.made = list(nest.withheld), nest.made
        end = _end(ckpt)
    if end is not None:
        file.seek(end)
    _warn(met)
    return value


def _warn(met: _Met) -> None:
    if met.inert:
        text = f"{met.path} is {met.verdict}: not made, since nobody trusts it: {shown(met.inert)}"
    elif met.verdict != "safe":
        text = f"{met.path} is {met.verdict}: {met.findings[0]}; {was_run(met.made)}"
    else:
        return
    warnings.warn(escape(text), NotSafeWarning, stacklevel=5)


def _end(ckpt: Checkpoint) -> int | None:
    """Where torch's reader stands afterwards in a file of before torch 1.6: behind it."""
    if ckpt.format != "torch_legacy":
        return None
    ends = [each.offset + each.nbytes for each in ckpt.contents.storages.values()]
    return max(ends, default=0) or max(program.end for _, program in ckpt.contents.programs)


def _on_the_host() -> Any:  # noqa: ANN401
    """`with torch.device("meta")` around a load is not meant for what is in the file."""
    host = torch.device("cpu")
    return nullcontext() if torch.get_default_device() == host else host


def _destinations(map_location: Any, ckpt: Checkpoint) -> Destinations:  # noqa: ANN401
    """As torch.load places tensors, and on the CPU where the file's device is not here.

    Raises torch's own RuntimeError where a device that the program asks for is not here.
    """
    names = {storage.device for storage in ckpt.contents.storages.values()}
    home = {name: name for name in names if _is_here(name)}
    if map_location is None:
        return Destinations(map_location=home)
    if isinstance(map_location, dict):
        _require_here(map_location[name] for name in names if name in map_location)
        return Destinations(map_location={**home, **map_location})
    if not callable(map_location):
        _require_here([map_location] if names else [])
        return Destinations(map_location=map_location)

    def placed(storage: Any, location: str) -> Any:  # noqa: ANN401
        found = map_location(storage, location)
        if found is None and location in home:
            return torch.serialization.default_restore_location(storage, location)  # type: ignore[no-untyped-call]
        return found

    return Destinations(map_location=placed)


def _require_here(locations: Iterable[object]) -> None:
    for location in locations:
        # torch's own answer, on nothing: programs catch its error, and load to the CPU instead.
        torch.serialization.default_restore_location(torch.UntypedStorage(0), str(location))  # type: ignore[no-untyped-call]


def _is_here(location: str) -> bool:
    kind, _, number = location.partition(":")
    if kind == "cuda":
        return torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count()
    return kind in ("mps", "xpu") and getattr(torch, kind).is_available()


def script(f: Any, map_location: Any, extra: Any, restore: Any) -> object:  # noqa: ANN401
    """In place of `torch.jit.load`: a script is code, which is loaded if a scan calls it safe."""
    held = current()
    if held is None:
        return hooks.ORIGINALS["torch.jit._serialization.load"](f, map_location, extra, restore)
    with _noted(held, "torch.jit.load", f) as met, _opened(f) as file:
        data, met.told = file.read(), False
    return _scripted(held, f, data, map_location, extra, restore)


def _scripted(
    held: Held,
    f: object,
    data: bytes,
    map_location: Any,  # noqa: ANN401
    extra: Any,  # noqa: ANN401
    restore: Any,  # noqa: ANN401
) -> object:
    with _noted(held, "torch.jit.load", f) as met:
        _require_safe(met, data, "torchscript")
        original = hooks.ORIGINALS["torch.jit._serialization.load"]
        return original(io.BytesIO(data), map_location, extra, restore)


def package(f: Any) -> Any:  # noqa: ANN401
    """The bytes that a `PackageImporter` may have: those of a package that a scan calls safe."""
    held = current()
    if held is None:
        return f
    with _noted(held, "torch.package", f) as met:
        if not hasattr(f, "read") and not isinstance(f, str | os.PathLike):
            met.verdict = "unknown"
            met.refuse("a package as a file", "Hand its path to PackageImporter.")
        with _opened(f) as file:
            data = file.read()
        _require_safe(met, data, "torch_package")
        return io.BytesIO(data)


def _require_safe(met: _Met, data: bytes, kind: str) -> None:
    """Code cannot be left inert: it is refused unless it is safe, whatever `require` says."""
    with open_checkpoint(data) as ckpt:
        if ckpt.format != kind:
            # It was judged as what it is, and would be read as something else.
            raise Unsupported(met.path, expected=f"a file of the format {kind}", got=ckpt.format)
        met.judged(*met.held.trust.weigh(judge(ckpt, audit=True)[1]))
    if met.verdict != "safe":
        met.refuse(
            "code that a scan calls safe, as none of it can be left inert",
            "See what it would do: tensorkeep scan.",
        )


def metadata(f: Any) -> object:  # noqa: ANN401
    """In place of the `pickle.load` of torch.distributed.checkpoint: torch's own classes only."""
    with _noted(current() or Held(), "torch.distributed.checkpoint", f) as met:
        with open_checkpoint(f.read()) as ckpt:
            trust = Trust.known(_METADATA, met.held.trust.names)
            contents, how = ckpt.contents, How()
            asked = assembling.ask(ckpt, contents.root, contents.lens, trust, how.limits)
            met.judged(*assembling.weigh(ckpt, asked, audit=True))
            met.inert = list(asked.withheld)
            if met.inert or (met.held.require == "safe" and met.verdict != "safe"):
                met.refuse("metadata of torch's own classes", "Look at it: tensorkeep scan.")
            value, nest = assembling.make(ckpt, contents.root, contents.lens, trust, how)
            met.made = nest.made
        return value


@contextmanager
def _opened(f: Any) -> Iterator[Any]:  # noqa: ANN401
    """One handle on `f` from here to the end of the load; what is no path stays open."""
    if isinstance(f, str | os.PathLike):
        # What a program expects of a path that is not there is Python's own error.
        with open(f, "rb") as file:  # noqa: PTH123
            yield file
    else:
        yield from_here(f)


@contextmanager
def _noted(held: Held, call: str, f: Any) -> Iterator[_Met]:  # noqa: ANN401
    """Write down how a load ends, and raise what the caller of torch expects to be raised."""
    named = os.fspath(f) if isinstance(f, str | os.PathLike) else getattr(f, "name", None)
    met = _Met(held, named if isinstance(named, str) else f"<{type(f).__name__}>")
    started = time.perf_counter()
    outcome, error = "loaded", ""
    try:
        yield met
    except (ReadError, StoreError, Unsupported) as caught:
        outcome, error = "failed", str(caught)
        raise _as(Unloadable, caught) from caught
    except Untrusted as caught:
        outcome, error = "refused", str(caught)
        raise _as(Refused, caught) from caught
    except BaseException as caught:
        outcome = "refused" if isinstance(caught, Refused) else "failed"
        error = str(caught)
        raise
    finally:
        if met.told or outcome != "loaded":
            seconds = time.perf_counter() - started
            made = {"findings": met.findings, "inert": met.inert, "made": met.made}
            held.log.add(
                GuardEvent(
                    call,
                    met.path,
                    outcome,
                    met.verdict,
                    **made,  # type: ignore[arg-type]
                    error=error,
                    seconds=seconds,
                    process=os.getpid(),
                )
            )


def _as(kind: type[Refused | Unloadable], error: TensorkeepError) -> Refused | Unloadable:
    return kind(
        error.subject,
        expected=error.expected,
        got=error.got,
        where=error.where,
        remedy=error.remedy,
    )
