"""A module filled from an opened checkpoint: matched, checked, read, and only then touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.errors import BadArgument, DoesNotFit, NothingSelected
from tensorkeep.facts import Limits
from tensorkeep.live import accounting, dequantising, lazy, starting, wishes
from tensorkeep.live.devices import Destinations
from tensorkeep.live.filling import Filling
from tensorkeep.live.incoming import Incoming, Source, all_edits, built, incoming
from tensorkeep.live.layout import Layout, layout_of
from tensorkeep.live.policies import DtypePolicy
from tensorkeep.live.report import LoadReport
from tensorkeep.live.undo import Undo
from tensorkeep.live.wishes import Wish
from tensorkeep.matching.finding import Match, compare, find
from tensorkeep.matching.hints import hints
from tensorkeep.matching.rules import applied
from tensorkeep.matching.specs import Spec, Wanted
from tensorkeep.progress import Reporter

_CPU = torch.device("cpu")


@dataclass(slots=True)
class How:
    """The options of `load_into`, each decided.

    `keep`: called when modules will read from the checkpoint later, so that nobody closes it
    before; None if it is the caller's to close.
    """

    strict: bool
    fix: bool
    skip_shapes: bool
    floor: float
    assign: bool
    mapped: bool
    lazy: bool
    keep: Callable[[], object] | None
    limits: Limits
    reporter: Reporter
    policy: DtypePolicy = field(init=False)
    to: Destinations | None = None

    def say(self, dtype: object, device: Any, device_map: Any) -> None:  # noqa: ANN401
        """Set what needs torch to be understood. Raises `BadArgument`."""
        self.policy = DtypePolicy(dtype)
        if device is not None or device_map is not None:
            self.to = Destinations("cpu" if device is None else device, device_map=device_map)
            self.to.require()
            for each in (self.to.device, *self.to.by_prefix.values()):
                if each.type == "meta":
                    got = "one without values"
                    raise BadArgument(f"device {each}", expected="a device that is here", got=got)

    def device_of(self, name: str, tensor: torch.Tensor) -> torch.device:
        """Where the tensor of the module shall be."""
        if self.to is not None:
            return self.to.of(name, "")
        return _CPU if tensor.is_meta else tensor.device


def load(
    module: nn.Module,
    ckpt: Checkpoint,
    recipe: object,
    edits: Sequence[Any],
    section: str | None,
    how: How,
) -> LoadReport:
    """Fill `module`. Raises what `load_into` raises; the module is then as it was."""
    layout = layout_of(module)
    if not layout.tensors and not layout.values:
        raise NothingSelected(layout.subject, expected="parameters or buffers", got="none")
    every, part = all_edits(recipe, edits)
    chosen = part if section is None else section
    coming = incoming(ckpt, chosen, every, layout.subject, layout.values)
    work = _Work(layout, coming, how)
    return work.run()


class _Work:
    """One load."""

    def __init__(self, layout: Layout, coming: Incoming, how: How) -> None:
        self.layout, self.coming, self.how = layout, coming, how
        floats = self._dequantise()
        self._fit()
        self.wishes: dict[str, Wish] = {}
        match = self.match
        self.report = LoadReport(
            coming.ckpt.path,
            coming.section,
            layout.subject,
            rules=match.rules,
            tensors=len(layout.tensors),
            tied=match.tied,
            tolerated=match.tolerated,
            by_shape_only=match.by_shape_only,
            dequantised=[name for name, source in match.names.items() if source in floats],
            notes=[*coming.notes, *match.notes],
            match=match,
        )
        # Modules without tensors are in the maps that others make.
        known = [*layout.tensors, *(name for name, _ in layout.module.named_modules())]
        if how.to is not None and (told := how.to.unmet(known)):
            self.report.notes.append(told)

    def run(self) -> LoadReport:
        """Check, read, fill."""
        accounting.plan(self.report, self.match, self.layout, self.after)
        self._refuse(certain=True)
        self._wish()
        later = self._later() if self.how.lazy else {}
        self.report.lazy = bool(later)
        now = {name: wish for name, wish in self.wishes.items() if name not in later}
        ready, casts = wishes.read(
            now, self._sources(now), mapped=self.how.mapped, reporter=self.how.reporter
        )
        self.report.cast = casts
        self.report.bytes = self._bytes(now)
        self._compare_tied(ready)
        extra = self._extra()
        with Undo() as undo:
            self._start(undo)
            filling = Filling(
                self.layout,
                now,
                ready,
                extra,
                self._versions(),
                self.how.assign,
                undo,
                self.report.path,
            )
            filling.run()
            given = self.wishes
            accounting.settle(self.report, self.match, self.layout, filling, given)
            self._refuse()
            lazy.remove(self.layout.module, undo)
            if later:
                opened = lazy.Opened(self.coming.ckpt, self.how.keep)
                sources, mapped = self._sources(later), self.how.mapped
                lazy.install(self.layout, later, sources, opened, undo, mapped=mapped)
            filling.finish()
        return self.report

    def _bytes(self, names: Iterable[str]) -> int:
        """What is read for `names`: codes and scales where floats are made of them."""
        read = {self.match.names[name] for name in names}
        sources, specs = self.coming.sources, self.specs
        return sum(
            dequantising.stored_bytes(sources[source]) or specs[source].nbytes for source in read
        )

    def _fit(self) -> None:
        self.specs = self.coming.specs()
        self.match, self.wanted = self._match()
        self.after = _names_after(self.match, self.specs, self.coming)

    def _dequantise(self) -> set[str]:
        """Make floats of the int8 codes that the module does not want as codes; their names."""
        found = dequantising.pairs(self.coming.sources)
        if not found or self.how.policy.word == "exact":
            return set()
        tensors = self.layout.tensors
        if dequantising.may_take_codes(tensors):
            self._fit()
            new = {source: name for name, source in self.after.items()}
            found = [n for n in found if not dequantising.takes_codes(tensors, new.get(n, n))]
        dequantising.dequantise(self.coming, found)
        return set(found)

    def _match(self) -> tuple[Match, Wanted]:
        wanted = self.layout.wanted(self._lazy_shapes({}))
        names = {name: name for name in self.specs}
        if not self.how.fix:
            return compare(names, self.specs, wanted.tensors), wanted
        match = find(self.specs, wanted.tensors, rebuilt=wanted.rebuilt)
        told = applied(match.rules, self.specs) if self.layout.lazy else {}
        shapes = self._lazy_shapes(told if isinstance(told, dict) else {})
        if shapes.keys() - wanted.tensors.keys():
            wanted = self.layout.wanted(shapes)
            match = find(self.specs, wanted.tensors, rebuilt=wanted.rebuilt)
        return match, wanted

    def _lazy_shapes(self, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
        """Of lazy parameters: those that the file gives them."""
        found = ((name, names.get(name, name)) for name in self.layout.lazy)
        return {name: self.specs[source].shape for name, source in found if source in self.specs}

    def _sources(self, names: Iterable[str]) -> dict[str, Source]:
        return {name: self.coming.sources[self.match.names[name]] for name in names}

    def _later(self) -> dict[str, Wish]:
        """What is on meta, and not in the care of a module that loads itself."""
        tensors, special = self.layout.tensors, self.layout.is_special
        return {n: w for n, w in self.wishes.items() if tensors[n].is_meta and not special(n)}

    def _wish(self) -> None:
        wrong = []
        for name, source in self.match.names.items():
            if source not in self.coming.sources:
                continue  # put together of several tensors: it goes the way of other values
            tensor = self.layout.tensors[name]
            file = wishes.dtype_of(self.coming.sources[source])
            dtype = self.how.policy.of(file, tensor.dtype)
            if dtype is None:
                wrong.append((name, file, tensor.dtype))
                continue
            self.wishes[name] = self._wish_of(name, tensor, dtype)
        if wrong:
            raise self._wrong_dtypes(wrong)

    def _wish_of(self, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> Wish:
        device = self.how.device_of(name, tensor)
        like = tensor if hasattr(tensor, "placements") else None
        moved = like is None and (dtype != tensor.dtype or device != tensor.device)
        fresh = name not in self.layout.lazy and (tensor.is_meta or self.how.assign or moved)
        # What is copied anyway is copied to its device from where it was read to.
        stage = device if fresh or device.type != "cpu" else _CPU
        return Wish(self.layout.shared[name], dtype, stage, fresh, like)

    def _wrong_dtypes(self, wrong: Sequence[tuple[str, torch.dtype, torch.dtype]]) -> DoesNotFit:
        name, file, model = wrong[0]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        exact = self.how.policy.word == "exact"
        return DoesNotFit(
            self.report.path,
            expected=f"{str(model)[6:]} for `{name}`",
            got=f"MISMATCH in dtype: {str(file)[6:]}{more}",
            remedy="Allow casts with dtype='cast'."
            if exact
            else "Numbers of another kind have another meaning: dequantise or convert them first.",
        )

    def _compare_tied(self, ready: Mapping[str, torch.Tensor]) -> None:
        """One parameter that the file has twice must be the same there."""
        firsts: dict[str, str] = {}
        for name in ready:
            first = firsts.setdefault(self.layout.shared[name], name)
            if first != name and not _equal(ready[first], ready[name]):
                text = f"`{first}` and `{name}` are one parameter, and two tensors in the file"
                if self.how.strict:
                    raise DoesNotFit(
                        self.report.path,
                        expected=f"one tensor for one parameter of {self.layout.subject}",
                        got=f"MISMATCH: {text}",
                        remedy="Untie them in the model, or take strict=False for the first one.",
                    )
                self.report.notes.append(f"{text}: the first was taken")

    def _extra(self) -> dict[str, object]:
        """What only modules that load themselves can take: all that has their prefix."""
        found: dict[str, object] = {}
        loose = {}
        for name, source in self.after.items():
            inside = name in self.layout.values or self.layout.is_special(name)
            if source in self.coming.loose:
                if inside or name in self.match.names:
                    loose[name] = self.coming.loose[source]
            elif inside and name not in self.wishes:
                found[name] = wishes.computed_or_read(self.coming.sources[source])
        return found | built(loose, self.how.limits, self.coming.ckpt)

    def _versions(self) -> dict[str, dict[str, object]]:
        """By module, what the one that wrote its tensors said of itself."""
        if not self.coming.versions:
            return {}
        found = dict(self.coming.versions)
        for name, source in self.after.items():
            old = self.coming.origin.get(source, source).rpartition(".")[0]
            new = name.rpartition(".")[0]
            while old != new and new:  # the modules around it too, as long as names differ
                if old in self.coming.versions:
                    found[new] = self.coming.versions[old]
                new, old = new.rpartition(".")[0], old.rpartition(".")[0]
        return found

    def _start(self, undo: Undo) -> None:
        """Values for what is on meta and in no file."""
        filled = {self.layout.shared[name] for name in self.wishes}
        given = {n for n in self.after if self.layout.is_special(n)}
        left = [
            name
            for name, tensor in self.layout.tensors.items()
            if tensor.is_meta
            and self.layout.shared[name] not in filled
            and name not in given
            and not (name in self.match.tolerated and self.layout.is_special(name))
        ]
        model = self.layout.module
        device = _CPU if self.how.to is None else self.how.to.device
        if left:
            starting.initialise(model, left, device, undo, self.report.path)
            self.report.by_module = left
        self.report.rebuilt = starting.rebuild(model, device, undo, self.report.path)

    def _refuse(self, *, certain: bool = False) -> None:
        """Raise if it does not fit. `certain`: by what no module's own code can still change."""
        report = self.report
        accounting.cover(report, self.match, self.layout, self.specs)
        if certain and self.layout.special:
            plain = [n for n in report.initialised if not self.layout.is_special(n)]
            if not plain:
                return
        if not report.fits and not report.hints:
            report.hints = hints(self.match, self.specs, self.wanted.tensors)
        error = report.refusal(
            shapes=not self.how.skip_shapes, names=self.how.strict, floor=self.how.floor
        )
        if error is not None:
            raise error


def _names_after(match: Match, specs: Mapping[str, Spec], coming: Incoming) -> dict[str, str]:
    """Every name after the rules, of tensors and other values, and the one before."""
    names = [*specs, *(name for name in coming.loose if name not in specs)]
    told = applied(match.rules, dict.fromkeys(names))
    if not isinstance(told, dict):
        # Rules of tensors' names need not suit those of other values.
        told = applied(match.rules, specs)
        told = told if isinstance(told, dict) else {name: name for name in specs}
        told |= {name: name for name in coming.loose if name not in told}
    return told


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a is b or (a.data_ptr() == b.data_ptr() and a.shape == b.shape):
        return True
    same = a.shape == b.shape and a.dtype == b.dtype
    return same and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
