"""`quantize`: the weights of a checkpoint as int8 with a scale for each output channel.

From file to file, without the model's class, in pieces: no tensor is ever whole in memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tensorkeep.checkpoints import destination
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.choosing import Choice
from tensorkeep.checkpoints.destination import Destination
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.checkpoints.writing import Plan
from tensorkeep.edits import planning
from tensorkeep.edits.int8 import Pair
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.quantized import (
    LEAST,
    Rules,
    Selection,
    quantization_config,
    quantize_inventory,
    strangers,
)
from tensorkeep.errors import BadArgument, NotFound, Unwritable
from tensorkeep.facts import Limits, Verdict
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.scanning.requiring import check_safe
from tensorkeep.stores.opening import open_blob, path_of

CONFIG = "config.json"
_LONGEST_CONFIG = 16 << 20


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that was quantised, or would be. Bytes after include its scales.

    `sqnr_db`: signal to quantisation noise in decibels; None for a dry run, infinite where
    nothing was lost.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes_before: int
    bytes_after: int
    tied_to: str | None
    sqnr_db: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "tied_to": self.tied_to,
            "sqnr_db": _finite(self.sqnr_db),
        }


@dataclass(frozen=True, slots=True)
class Kept:
    """A tensor that stays as it is, and why."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        shape = list(self.shape)
        told = {"name": self.name, "dtype": self.dtype, "shape": shape, "bytes": self.nbytes}
        return told | {"why": self.why}


@dataclass(slots=True)
class QuantizeReport:
    """What was written, or would be.

    `bytes_before` and `bytes_after` count the tensor bytes of the chosen section, tied ones once.
    `sqnr_db` is over all quantised values together. `verified` is how many tensors were read back
    and compared, None if nobody asked.
    """

    source: str
    destination: str
    format: str
    section: str
    bytes_before: int
    bytes_after: int
    files: list[str]
    verdict: Verdict
    dry_run: bool
    quantized: list[Weight] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sqnr_db: float | None = None
    verified: int | None = None

    @property
    def ratio(self) -> float:
        """How many times smaller the tensors are."""
        return self.bytes_before / self.bytes_after

    @property
    def worst(self) -> list[Weight]:
        """What was quantised and measured, the lowest SQNR first, tied tensors once."""
        measured = [w for w in self.quantized if w.sqnr_db is not None and w.tied_to is None]
        return sorted(measured, key=lambda weight: weight.sqnr_db or 0.0)

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
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "ratio": round(self.ratio, 4),
            "sqnr_db": _finite(self.sqnr_db),
            "quantized": [weight.to_dict() for weight in self.quantized],
            "kept": [kept.to_dict() for kept in self.kept],
            "left_out": [{"name": name, "why": why} for name, why in self.left_out],
            "notes": self.notes,
            "verified": self.verified,
        }


def _finite(number: float | None) -> float | str | None:
    if number is None:
        return None
    return round(number, 3) if math.isfinite(number) else "Infinity"


def quantize(
    source: Source,
    destination_: str | os.PathLike[str],
    *,
    to: str | None = None,
    section: str | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    embeddings: bool = False,
    lm_head: bool = False,
    conv: bool = False,
    min_size: int = LEAST,
    shard_size: int | str | None = None,
    drop_unsupported: bool = False,
    require: str | None = None,
    dry_run: bool = False,
    verify: bool = False,
    overwrite: bool = False,
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> QuantizeReport:
    """Write the tensors of `source` to `destination_` with its large weights as int8.

    A weight [out, in] of float32, float16, bfloat16 or float64 becomes int8 of the same shape, and
    beside it NAME_scale, float32 [out, 1]: max|row| / 127, so that their product is the weight
    again to half a scale. All other tensors are copied unchanged, into the same file.

    Quantised are tensors of 2 dimensions called `weight` with at least `min_size` elements, but no
    norms; with `embeddings`, `lm_head` and `conv` also embeddings, the head, and weights of more
    than 2 dimensions. `only`: globs; what matches is quantised whatever it is called, and nothing
    else is. `skip`: globs of what stays as it is.

    `to`, `section`, `shard_size`, `drop_unsupported`, `require`, `dry_run`, `verify`, `overwrite`:
    as in `convert`. A destination that ends in "/" or is a folder also gets `config.json`, that of
    the source's folder if there is one, with `quantization_config` for compressed-tensors.

    Raises `ReadError`, `StoreError`, `SelectionError` (also where there is nothing to quantise),
    `Unwritable` (also for NaN and infinity, and for what is quantised already), `NotSafe`,
    `BadArgument`.
    """
    _check_arguments(destination_, (only, skip), require, min_size)
    rules = Rules(embeddings, lm_head, conv, min_size, tuple(only), tuple(skip))
    with open_checkpoint(source, limits=limits) as ckpt:
        target = destination.resolve(destination_, to, shard_size)
        target.check(ckpt, overwrite=overwrite)
        job = _Job(ckpt, target, drop=drop_unsupported)
        job.check_safe(require)
        job.select(section)
        job.quantize(rules, source)
        plan = job.plan(verify=verify)
        report = job.report(plan, dry_run=dry_run)
        if not dry_run:
            report.verified, notes = job.target.write(
                ckpt, plan, overwrite, verify=verify, reporter=reporter
            )
            report.notes += notes
            job.measure(report, plan)
        return report


def _check_arguments(dst: object, lists: object, require: object, min_size: object) -> None:
    """What the types say, for callers that nobody checks."""
    if not isinstance(dst, str | os.PathLike):
        raise BadArgument("DST", expected="a path", got=f"a {type(dst).__name__}")
    if any(isinstance(given, str) for given in lists):  # type: ignore[attr-defined]
        raise BadArgument("only, skip", expected="a list of globs", got="one string")
    if require not in (None, "safe"):
        raise BadArgument("require", expected='"safe" or nothing', got=repr(require))
    if not isinstance(min_size, int) or min_size < 0:
        raise BadArgument("--min-size", expected="a number of elements", got=repr(min_size))


class _Job:
    """One quantisation: what becomes int8, what does not, and why."""

    def __init__(self, ckpt: Checkpoint, target: Destination, *, drop: bool) -> None:
        self.ckpt, self.target, self.drop = ckpt, target, drop
        self.notes: list[str] = [*ckpt.contents.notes, *ckpt.index.swept.notes]

    def check_safe(self, require: str | None) -> None:
        self.verdict, notes = check_safe(self.ckpt, require)
        self.notes += notes

    def select(self, section: str | None) -> None:
        choice = Choice(self.ckpt, section, drop=self.drop)
        self.section, self.left_out = choice.section, choice.left_out
        self.notes += choice.notes
        self.inventory = Inventory.of(self.ckpt.path, choice.chosen)
        self.before = dict(self.inventory.tensors)

    def quantize(self, rules: Rules, source: Source) -> None:
        self.found: Selection = quantize_inventory(self.inventory, rules)
        self.notes += [f"no name matches {glob!r}" for glob in rules.unmatched(self.before)]
        if self.target.shard_size is not None:
            config = _config_beside(source)
            config["quantization_config"] = quantization_config(self.found, self.inventory)
            data = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
            self.target = replace(self.target, beside={CONFIG: data})
            self._note_strangers()

    def _note_strangers(self) -> None:
        odd = strangers(self.found)
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            self.notes.append(
                f"compressed-tensors looks for weights of Linear only, not for {odd[0]}{more}"
            )

    def plan(self, *, verify: bool) -> Plan:
        kind = self.target.kind
        outputs, bad = planning.outputs(self.inventory, kind, self.target.name, drop=self.drop)
        self.left_out += bad
        told: dict[str, object] = {"quantize": "int8, a scale for each output channel"}
        told["section"] = self.section
        metadata = planning.text(self.ckpt, outputs)
        metadata = planning.lineage(metadata, [self.ckpt], told, digests=verify)
        versions = None
        if kind.holds_versions:
            versions = planning.versions(
                self.ckpt, planning.state_dict_path(self.section), self.inventory
            )
        return planning.plan(outputs, metadata, versions)

    def report(self, plan: Plan, *, dry_run: bool) -> QuantizeReport:
        left = {name for name, _ in self.left_out}
        kept = [
            Kept(name, array.dtype.name, array.shape, array.nbytes, self.found.kept[name])
            for name, array in self.before.items()
            if name in self.found.kept and name not in left
        ]
        once = {array: array.nbytes for name, array in self.before.items() if name not in left}
        return QuantizeReport(
            source=self.ckpt.path,
            destination=self.target.name,
            format=self.target.kind.name,
            section=self.section,
            bytes_before=sum(once.values()),
            bytes_after=plan.nbytes,
            files=self.target.files(plan),
            verdict=self.verdict,
            dry_run=dry_run,
            quantized=self._weights(plan, measured=False),
            kept=kept,
            left_out=self.left_out,
            notes=self.notes,
        )

    def measure(self, report: QuantizeReport, plan: Plan) -> None:
        """Put into `report` what was measured while the plan was written."""
        report.quantized = self._weights(plan, measured=True)
        tallies = list({id(pair): pair.tally for pair in self.found.pairs.values()}.values())
        signal, noise = (sum(getattr(t, of) for t in tallies) for of in ("signal", "noise"))
        report.sqnr_db = 10 * math.log10(signal / noise) if signal and noise else math.inf

    def _weights(self, plan: Plan, *, measured: bool) -> list[Weight]:
        return [
            _weight(name, pair, plan.aliases.get(name), measured=measured)
            for name, pair in self.found.pairs.items()
        ]


def _weight(name: str, pair: Pair, tied_to: str | None, *, measured: bool) -> Weight:
    after = pair.weight.nbytes + pair.scale.nbytes
    sqnr = pair.tally.sqnr_db if measured else None
    of = pair.of
    return Weight(name, of.dtype.name, of.shape, of.nbytes, after, tied_to, sqnr)


def _config_beside(source: Source) -> dict[str, Any]:
    """What `config.json` in the folder of `source` says; nothing if there is none.

    Raises `Unwritable` if it says that the model is quantised already, or is no JSON object.
    """
    path = path_of(source)
    if path is None:
        return {}
    beside = (path if path.is_dir() else path.parent) / CONFIG
    name = os.fspath(beside)
    try:
        with open_blob(beside) as blob:
            data = blob.read(0, min(blob.size, _LONGEST_CONFIG + 1))
    except NotFound:
        return {}
    try:
        config = json.loads(data) if len(data) <= _LONGEST_CONFIG else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise Unwritable(
            name,
            expected="a JSON object, to be extended",
            got="something else",
            remedy="Repair it or move it away.",
        )
    if "quantization_config" in config:
        raise Unwritable(
            name,
            expected="a model that was not quantised yet",
            got="one with a quantization_config",
            remedy="Quantise the model that this was made from.",
        )
    return config
