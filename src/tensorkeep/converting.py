"""`convert`: tensors of one checkpoint into a new file, in another format, dtype or partition.

Reads and writes ranges; nothing is run, and no tensor is ever whole in memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tensorkeep.checkpoints import destination, wholes
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.destination import Destination
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.checkpoints.sections import ALL, FLAT
from tensorkeep.checkpoints.streaming import Output, Values
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.checkpoints.writing import Plan, Versions
from tensorkeep.dtypes import DType, find
from tensorkeep.edits.arrays import Cast, Stored
from tensorkeep.edits.values import castable
from tensorkeep.errors import BadArgument, NothingSelected, NotSafe, Unwritable
from tensorkeep.facts import Limits, Verdict
from tensorkeep.formats.contents import Items, sizes
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.scanning import judge


@dataclass(slots=True)
class ConvertReport:
    """What was written, or would be. `nbytes` counts tensor bytes; tied tensors once.

    `left_out` is pairs of a name and why; `cast` the names that changed their dtype;
    `verified` is how many tensors were read back and compared, None if nobody asked.
    """

    source: str
    destination: str
    format: str
    section: str
    tensors: int
    nbytes: int
    tied: dict[str, str]
    cast: list[str]
    left_out: list[tuple[str, str]]
    notes: list[str]
    files: list[str]
    verdict: Verdict
    dry_run: bool
    verified: int | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": 1,
            "source": self.source,
            "destination": self.destination,
            "format": self.format,
            "section": self.section,
            "dry_run": self.dry_run,
            "verdict": self.verdict,
            "files": self.files,
            "bytes": self.nbytes,
            "tensors": self.outputs,
            "tied": self.tied,
            "cast": self.cast,
            "left_out": [{"name": name, "why": why} for name, why in self.left_out],
            "notes": self.notes,
            "verified": self.verified,
        }


def convert(
    source: Source,
    destination_: str | os.PathLike[str],
    *,
    to: str | None = None,
    section: str | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    dtype: str | None = None,
    shard_size: int | str | None = None,
    drop_unsupported: bool = False,
    require: str | None = None,
    dry_run: bool = False,
    verify: bool = False,
    overwrite: bool = False,
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> ConvertReport:
    """Write the tensors of `source` to `destination_`; whole under its name, or not at all.

    `to`: "safetensors" or "torch"; by default what the destination's ending says. A destination
    that ends in "/" or is a directory gets numbered parts of at most `shard_size` bytes ("5GB",
    "500MB", a number; 5GB by default) and an index. `section`: a top-level part, "all", or None
    for the weights. `only`, `skip`: globs over names inside the section. `dtype`: the type that
    floating point tensors get. `require="safe"` refuses what a scan does not call safe.

    Raises `ReadError`, `StoreError`, `SelectionError`, `Unwritable`, `NotSafe`, `BadArgument`.
    """
    _check_arguments(destination_, only, skip, require)
    with open_checkpoint(source, limits=limits) as ckpt:
        target = destination.resolve(destination_, to, shard_size)
        job = _Job(ckpt, target, drop_unsupported=drop_unsupported)
        job.check_safe(require)
        job.select(section, only, skip)
        plan = job.plan(_wanted_dtype(dtype))
        report = job.report(plan, dry_run=dry_run)
        report.files = target.files(plan)
        target.check(ckpt, overwrite=overwrite)
        if not dry_run:
            report.verified, notes = target.write(
                ckpt, plan, overwrite, verify=verify, reporter=reporter
            )
            report.notes += notes
        return report


def _check_arguments(dst: object, only: object, skip: object, require: object) -> None:
    """What the types say, for callers that nobody checks: a misspelt `require` must not pass."""
    if not isinstance(dst, str | os.PathLike):
        raise BadArgument("DST", expected="a path", got=f"a {type(dst).__name__}")
    if isinstance(only, str) or isinstance(skip, str):
        raise BadArgument("only, skip", expected="a list of globs", got="one string")
    if require not in (None, "safe"):
        raise BadArgument("require", expected='"safe" or nothing', got=repr(require))


def _wanted_dtype(name: object) -> DType | None:
    if name is None:
        return None
    dtype = find(name) if isinstance(name, str) else None
    if dtype is None or not dtype.is_floating:
        raise BadArgument(
            "--dtype",
            expected="a floating point dtype such as float32, float16, bfloat16, float8_e4m3fn",
            got=repr(name),
        )
    return dtype


class _Job:
    """One conversion: what is taken, what is left out, and why."""

    def __init__(self, ckpt: Checkpoint, target: Destination, *, drop_unsupported: bool) -> None:
        self.ckpt = ckpt
        self.target = target
        self.drop = drop_unsupported
        self.left_out: list[tuple[str, str]] = []
        self.notes: list[str] = [*ckpt.contents.notes, *ckpt.index.swept.notes]
        self.cast: list[str] = []
        self.verdict: Verdict = "safe"
        self.section = FLAT
        self.chosen: dict[str, TensorRef] = {}

    def check_safe(self, require: str | None) -> None:
        self.verdict, findings = judge(self.ckpt, audit=require is not None)
        if require == "safe" and self.verdict != "safe":
            raise NotSafe(
                self.ckpt.path,
                expected="a file that a scan calls safe",
                got=f"{self.verdict}: {findings[0].what}" if findings else self.verdict,
                remedy="See what the file would do: tensorkeep scan.",
            )
        if self.verdict != "safe":
            self.notes.append(
                f"the source is {self.verdict}: {findings[0].what}; nothing of it was run"
            )

    def select(self, section: str | None, only: Sequence[str], skip: Sequence[str]) -> None:
        if self.ckpt.kind == "values" and section is None:
            self.section = ALL
            self._leave_unread()  # its sentence says more than that there is nothing
        self.section, notes = self.ckpt.choose(section)
        self.notes += notes
        self.notes += wholes.notes(self.ckpt.index, self.section)
        self.chosen = self.ckpt.select(self.section)
        self._leave_sections()
        self._leave_values()
        self._leave_unread()
        if not self.chosen and wholes.is_empty(self.ckpt.index):
            self.notes.append(wholes.empty(self.ckpt.index))
            return
        self._glob(only, skip)
        if not self.chosen:
            raise NothingSelected(
                self.ckpt.path,
                expected="at least one tensor",
                got="none",
                where=f"section {self.section!r}" if self.section else "",
                remedy="List the names with: tensorkeep inspect --tensors.",
            )

    def _leave_sections(self) -> None:
        if self.section == ALL:
            return
        for other in self.ckpt.sections:
            if other.name != self.section:
                self.left_out.append((other.name, f"section of {other.tensors} tensors"))

    def _leave_values(self) -> None:
        counts: dict[str, int] = {}
        known = {part.name for part in self.ckpt.sections}
        for path, _ in self.ckpt.index.leaves:
            name = str(path[0]) if path else "value"
            # The values of a section that is left out go with it.
            if self.section in (ALL, name) or name not in known:
                counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            self.left_out.append((name, "not a tensor" if count == 1 else f"{count} values"))

    def _leave_unread(self) -> None:
        unread = self.ckpt.unread(self.section)
        if unread and not self.drop:
            name, why = unread[0]
            packed = wholes.packed(self.ckpt.index, self.section)
            before = "Convert the model as it was before it was quantised, or leave"
            raise Unwritable(
                self.ckpt.path,
                expected="tensors that this version reads",
                got=(f"{packed}: " if packed else "")
                + (f"{why} and {len(unread) - 1} more" if len(unread) > 1 else why),
                where=name,
                remedy=f"{before if packed else 'Leave'} such tensors out with --drop-unsupported.",
            )
        self.left_out += unread

    def _glob(self, only: Sequence[str], skip: Sequence[str]) -> None:
        for pattern in [*only, *skip]:
            if not any(fnmatchcase(name, pattern) for name in self.chosen):
                self.notes.append(f"no name matches {pattern!r}")
        for name in list(self.chosen):
            if only and not any(fnmatchcase(name, pattern) for pattern in only):
                self._leave(name, "not in --only")
            elif any(fnmatchcase(name, pattern) for pattern in skip):
                self._leave(name, "in --skip")

    def _leave(self, name: str, why: str) -> None:
        del self.chosen[name]
        self.left_out.append((name, why))

    def plan(self, wanted: DType | None) -> Plan:
        outputs = {name: self._output(name, ref, wanted) for name, ref in self.chosen.items()}
        self._leave_unwritable(outputs)
        aliases = self._ties(outputs)
        unique = [output for name, output in outputs.items() if name not in aliases]
        versions = self._versions() if self.target.kind.holds_versions else None
        own = self.ckpt.contents.aliases
        metadata = {k: v for k, v in self.ckpt.metadata.items() if k not in own | outputs.keys()}
        if self.ckpt.format.startswith("sharded"):
            metadata.pop("total_size", None)
        return Plan(unique, list(outputs), aliases, metadata, versions)

    def _output(self, name: str, ref: TensorRef, wanted: DType | None) -> Output:
        source = ref.record.dtype
        ref.record.check(ref.name)
        if wanted is None or wanted is source or not source.is_floating:
            return Output(name, Stored(ref))
        if not castable(source, wanted):
            raise Unwritable(name, expected=f"a dtype that casts to {wanted}", got=source)
        self.cast.append(name)
        return Output(name, Cast(Stored(ref), wanted))

    def _leave_unwritable(self, outputs: dict[str, Output]) -> None:
        bad = {}
        for name, output in outputs.items():
            why = self.target.kind.problem(output.entry)
            if why or any(ref.record.storage.device == "meta" for ref in output.values.sources()):
                bad[name] = why or "a meta tensor has no values"
        if bad and not self.drop:
            name, why = next(iter(bad.items()))
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise Unwritable(
                self.target.name,
                expected=f"tensors that {self.target.kind.name} holds",
                got=f"{why}{more}",
                where=name,
                remedy="Leave such tensors out with --drop-unsupported.",
            )
        for name, why in bad.items():
            del outputs[name]
            self.left_out.append((name, why))

    def _ties(self, outputs: dict[str, Output]) -> dict[str, str]:
        """A name to the one whose bytes are kept: the first in sorted order, as in `save_model`."""
        first: dict[Values, str] = {}
        named = ((name, outputs[name].values) for name in sorted(outputs))
        kept = {name: first.setdefault(values, name) for name, values in named}
        return {name: other for name, other in kept.items() if other != name}

    def _versions(self) -> Versions | None:
        """The `_metadata` of the chosen state dict, if it is what torch writes there."""
        path = () if self.section in (FLAT, ALL) else (self.section,)
        found = self.ckpt.index.attributes.get(path, {}).get("_metadata")
        if not isinstance(found, Items):
            return None
        plain = {key: value for key, value in found.pairs if _is_version(key, value)}
        return plain if len(plain) == len(found.pairs) else None  # type: ignore[return-value]

    def report(self, plan: Plan, *, dry_run: bool) -> ConvertReport:
        by_name = {output.name: output for output in plan.outputs}
        outputs = []
        for name in plan.names:
            output = by_name[plan.aliases.get(name, name)]
            outputs.append(
                {
                    "name": name,
                    "from": self.chosen[name].name,
                    "dtype": output.values.dtype.name,
                    "shape": list(output.values.shape),
                    "bytes": output.nbytes,
                    "tied_to": plan.aliases.get(name),
                }
            )
        return ConvertReport(
            source=self.ckpt.path,
            destination=self.target.name,
            format=self.target.kind.name,
            section=self.section,
            tensors=len(plan.names),
            nbytes=plan.nbytes,
            tied=dict(plan.aliases),
            cast=[name for name in self.cast if name in by_name],
            left_out=self.left_out,
            notes=self.notes,
            files=[],
            verdict=self.verdict,
            dry_run=dry_run,
            outputs=outputs,
        )


def _is_version(key: object, value: object) -> bool:
    if not isinstance(key, str) or not isinstance(value, dict):
        return False
    return all(
        isinstance(k, str) and (sizes((v,)) or isinstance(v, bool | str | None))
        for k, v in value.items()
    )
