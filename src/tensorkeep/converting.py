"""`convert`: tensors of one checkpoint into a new file, in another format, dtype or partition.

Reads and writes ranges; nothing is run, and no tensor is ever whole in memory. Edits on the way
are planned on the index and applied while bytes stream.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tensorkeep.checkpoints import destination
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.choosing import Choice, nothing
from tensorkeep.checkpoints.destination import Destination
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.checkpoints.writing import Plan
from tensorkeep.dtypes import DType, find
from tensorkeep.edits import planning
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.others import Others
from tensorkeep.errors import BadArgument
from tensorkeep.facts import Limits, Verdict
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.scanning.requiring import check_safe

if TYPE_CHECKING:
    from tensorkeep.edits.casting import Tally


@dataclass(slots=True)
class ConvertReport:
    """What was written, or would be. `nbytes` counts tensor bytes; tied tensors once.

    `left_out` is pairs of a name and why; `cast` the names that changed their dtype;
    `verified` is how many tensors were read back and compared, None if nobody asked; `effect` is
    what the edits did, in words; `lost` is, per tensor, what casting lost: known when written.
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
    edits: list[dict[str, Any]] = field(default_factory=list)
    effect: str = ""
    lost: list[dict[str, Any]] = field(default_factory=list)

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
            "lost": self.lost,
            "edits": self.edits,
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
    strip: Sequence[str] = (),
    rename: Sequence[str] = (),
    add_prefix: Sequence[str] = (),
    drop: Sequence[str] = (),
    edits: Iterable[Edit] = (),
    recipe: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    on_overflow: str = "warn",
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
    for the weights. `only`, `skip`: globs over names inside the section.

    Then names and values are edited: `strip` (prefixes), `rename` ("FROM=TO"), `add_prefix`,
    `drop` (patterns), `edits`, those of the file `recipe`, in this order. `dtype`, last: the type
    that floating point tensors get; `on_overflow="error"` refuses values that it cannot hold,
    "warn" counts them. `require="safe"` refuses what a scan does not call safe.

    Raises `ReadError`, `StoreError`, `SelectionError`, `Unwritable`, `NotSafe`, `BadArgument`.
    """
    _check_arguments(
        destination_, (only, skip, strip, rename, add_prefix, drop), require, on_overflow
    )
    job_edits = list(edits)
    if strip or rename or add_prefix or drop:
        from tensorkeep.edits.names import flagged

        flags = {"strip": strip, "rename": rename, "add_prefix": add_prefix, "drop": drop}
        job_edits[:0] = flagged((flag, text) for flag, texts in flags.items() for text in texts)
    if recipe is not None:
        section = _add_recipe(recipe, job_edits, section)
    with open_checkpoint(source, limits=limits) as ckpt, Others() as others:
        target = destination.resolve(destination_, to, shard_size)
        job = _Job(ckpt, target, job_edits, others, drop_unsupported, limits)
        job.check_safe(require)
        job.select(section, only, skip)
        job.edit(_wanted_dtype(dtype), refuse=on_overflow == "error")
        target.check(ckpt, *others.checkpoints, overwrite=overwrite)
        plan = job.plan(verify=verify)
        report = job.report(plan, dry_run=dry_run)
        report.files = target.files(plan)
        if not dry_run:
            report.verified, notes = target.write(
                ckpt,
                plan,
                overwrite,
                verify=verify,
                reporter=reporter,
                others=others.checkpoints,
            )
            report.notes += [*notes, *job.told()]
            report.lost = [tally.to_dict() for tally in job.tallies if tally.runs]
        return report


def _add_recipe(path: str | os.PathLike[str], edits: list[Edit], section: str | None) -> str | None:
    """Add the recipe's edits to `edits`; the section to take."""
    from tensorkeep.edits.recipe import read_recipe

    found = read_recipe(path)
    edits += found.edits
    return found.section if section is None else section


def _check_arguments(dst: object, lists: object, require: object, on_overflow: object) -> None:
    """What the types say, for callers that nobody checks: a misspelt `require` must not pass."""
    if not isinstance(dst, str | os.PathLike):
        raise BadArgument("DST", expected="a path", got=f"a {type(dst).__name__}")
    if any(isinstance(given, str) for given in lists):  # type: ignore[attr-defined]
        raise BadArgument("only, skip, strip, rename", expected="a list of texts", got="one string")
    if require not in (None, "safe"):
        raise BadArgument("require", expected='"safe" or nothing', got=repr(require))
    if on_overflow not in ("warn", "error"):
        raise BadArgument("on_overflow", expected='"warn" or "error"', got=repr(on_overflow))


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
    """One conversion: what is taken, what becomes of it, what is left out, and why."""

    def __init__(
        self,
        ckpt: Checkpoint,
        target: Destination,
        edits: list[Edit],
        others: Others,
        drop: bool,
        limits: Limits | None,
    ) -> None:
        self.limits = limits
        self.ckpt, self.target, self.edits, self.drop = ckpt, target, edits, drop
        self.others = others
        self.notes: list[str] = [*ckpt.contents.notes, *ckpt.index.swept.notes]
        self.verdict: Verdict = "safe"
        self.effect = ""
        self.cast: list[str] = []
        self.tallies: list[Tally] = []

    def check_safe(self, require: str | None) -> None:
        self.verdict, notes = check_safe(self.ckpt, require)
        self.notes += notes

    def select(self, section: str | None, only: Sequence[str], skip: Sequence[str]) -> None:
        choice = Choice(self.ckpt, section, only, skip, drop=self.drop, limits=self.limits)
        self.section, self.chosen, self.left_out = choice.section, choice.chosen, choice.left_out
        self.notes += choice.notes

    def edit(self, wanted: DType | None, *, refuse: bool) -> None:
        self.wanted = wanted
        self.inventory = Inventory.of(self.ckpt.path, self.chosen)
        self.inventory.opens = self.others.open
        if self.edits:
            from tensorkeep.edits import applying, following

            before = self.inventory.copy()
            applying.apply(self.inventory, self.edits)
            following.check(self.ckpt, self.chosen, self.inventory)
            self.notes += self.inventory.notes
            self.effect = applying.effect(self.inventory, before)
            if not self.inventory.tensors:
                raise nothing(self.ckpt.path, "what the edits left")
        if wanted is not None:
            self.cast = planning.cast_floats(self.inventory, wanted)
        if self.edits or self.cast:
            self.tallies = planning.tallies(self.inventory, refuse=refuse)

    def told(self) -> list[str]:
        """What casting lost, in words."""
        if not self.tallies:
            return []
        from tensorkeep.edits.casting import sentences

        return sentences(self.tallies)

    def plan(self, *, verify: bool) -> Plan:
        kind = self.target.kind
        found, bad = planning.outputs(self.inventory, kind, self.target.name, drop=self.drop)
        self.left_out += bad
        metadata = planning.text(self.ckpt, found)
        if self.edits:
            sources = [self.ckpt, *self.others.checkpoints]
            told = {"edits": self._tables(), "section": self.section, "dtype": self.wanted}
            metadata = planning.lineage(metadata, sources, told, digests=verify)
        versions = None
        if kind.holds_versions:
            versions = planning.versions(self.ckpt, self.section, self.inventory)
        return planning.plan(found, metadata, versions)

    def _tables(self) -> list[dict[str, Any]]:
        from tensorkeep.edits.registry import table_of

        return [table_of(edit) for edit in self.edits]

    def report(self, plan: Plan, *, dry_run: bool) -> ConvertReport:
        by_name = {output.name: output for output in plan.outputs}
        outputs = []
        for name in plan.names:
            output = by_name[plan.aliases.get(name, name)]
            origin = [self.chosen[old].name for old in self.inventory.origin.get(name, ())]
            outputs.append(
                {
                    "name": name,
                    "from": origin[0] if len(origin) == 1 else None,
                    **({"made_of": origin} if len(origin) != 1 else {}),
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
            edits=self._tables() if self.edits else [],
            effect=self.effect,
        )
