"""One conversion: what is taken, what becomes of it, what is left out, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.choosing import Choice, nothing
from tensorkeep.checkpoints.destination import Destination
from tensorkeep.checkpoints.sections import ALL
from tensorkeep.checkpoints.writing import Plan
from tensorkeep.converting.report import ConvertReport
from tensorkeep.dtypes import DType
from tensorkeep.edits import planning
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.others import Others
from tensorkeep.facts import Limits, Verdict
from tensorkeep.scanning.requiring import check_safe

if TYPE_CHECKING:
    from tensorkeep.edits.casting import Tally
    from tensorkeep.edits.following import Labels


class Job:
    """Its steps are called in the order in which they stand here."""

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
        self.labels: Labels = lambda _root: {}

    def check_safe(self, require: str | None) -> None:
        """Judge the source. Raises `NotSafe`."""
        self.verdict, notes = check_safe(self.ckpt, require)
        self.notes += notes

    def check_others(self, require: str | None) -> None:
        """Judge what the edits took tensors from. Raises `NotSafe`."""
        self.notes += self.others.notes
        for other in self.others.checkpoints:
            self.notes += check_safe(other, require, other.path)[1]

    def select(self, section: str | None, only: Sequence[str], skip: Sequence[str]) -> None:
        """Take a section, less what globs leave out. Raises what `Choice` raises."""
        # Nested files are whole: parts of a folder are flat, as their index is.
        whole = self.target.kind.holds_values and self.target.shard_size is None
        self.nests = whole and section == ALL
        choice = self.choice = Choice(
            self.ckpt,
            section,
            only,
            skip,
            drop=self.drop,
            values=self.nests,
            limits=self.limits,
        )
        self.section, self.chosen, self.left_out = choice.section, choice.chosen, choice.left_out
        self.notes += choice.notes

    def edit(self, wanted: DType | None, *, refuse: bool) -> None:
        """Apply the edits, then cast to `wanted`; plans only. Raises what edits raise."""
        self.wanted = wanted
        self.inventory = Inventory.of(self.ckpt.path, self.chosen)
        self.inventory.opens = self.others.open
        if self.edits:
            from tensorkeep.edits import applying

            before = self.inventory.copy()
            applying.apply(self.inventory, self.edits)
            self.notes += self.inventory.notes
            self._follow()
            self.effect = applying.effect(self.inventory, before)
            if not self.inventory.tensors:
                raise nothing(self.ckpt.path, "what the edits left")
        elif len(self.chosen) < len(self.choice.every):
            self._follow()
        if wanted is not None:
            self.cast = planning.cast_floats(self.inventory, wanted)
        if self.edits or self.cast:
            self.tallies = planning.tallies(self.inventory, refuse=refuse)

    def _follow(self) -> None:
        from tensorkeep.edits import following

        self.labels = following.follow(self.ckpt, self.choice.every, self.inventory)

    def told(self) -> list[str]:
        """What casting lost, in words."""
        if not self.tallies:
            return []
        from tensorkeep.edits.casting import sentences

        return sentences(self.tallies)

    def plan(self, *, verify: bool) -> Plan:
        """What will be written. Raises `Unwritable` for what the format cannot hold."""
        kind = self.target.kind
        found, bad = planning.outputs(self.inventory, kind, self.target.name, drop=self.drop)
        self.left_out += bad
        metadata = planning.text(self.ckpt, found)
        if self.edits:
            sources = [self.ckpt, *self.others.checkpoints]
            told = {"edits": self._tables(), "section": self.section, "dtype": self.wanted}
            metadata = planning.lineage(metadata, sources, told, digests=verify)
        if self.nests:
            return planning.plan(found, metadata, None, self._tree(found))
        versions = None
        if kind.holds_versions:
            path = planning.state_dict_path(self.section)
            versions = planning.versions(self.ckpt, path, self.inventory)
        return planning.plan(found, metadata, versions)

    def _tree(self, names: Iterable[str]) -> object:
        """The value of the file with tensors `names`: sections, groups, counters as they were."""
        from tensorkeep.edits.nesting import tree

        made = tree(
            self.ckpt,
            self.inventory,
            names,
            leaves=self.choice.why_not,
            labels=self.labels,
            limits=self.limits,
        )
        self.left_out += made.left_out
        self.notes += made.notes
        return made.value

    def _tables(self) -> list[dict[str, Any]]:
        from tensorkeep.edits.registry import table_of

        return [table_of(edit) for edit in self.edits]

    def report(self, plan: Plan, *, dry_run: bool) -> ConvertReport:
        """What is known of it before a byte is written."""
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
