"""`convert`: tensors of one checkpoint into a new file, in another format, dtype or partition.

Reads and writes ranges; nothing is run, and no tensor is ever whole in memory. Edits on the way
are planned on the index and applied while bytes stream.

`job` is one conversion, `report` what is said about it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from tensorkeep.checkpoints import destination
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.converting.job import Job
from tensorkeep.converting.report import ConvertReport
from tensorkeep.dtypes import DType, find
from tensorkeep.edits.edit import Edit
from tensorkeep.edits.others import Others
from tensorkeep.errors import BadArgument
from tensorkeep.facts import Limits
from tensorkeep.progress import SILENT, Reporter

__all__ = ["ConvertReport", "convert"]


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
    merge_lora: Sequence[str] = (),
    average: Sequence[str] = (),
    fold_weight_norm: bool = False,
    dequantize: bool = False,
    edits: Iterable[Edit | str] = (),
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

    Then names and values are edited, in this order: `strip` (prefixes), `rename` ("FROM=TO"),
    `add_prefix`, `drop` (patterns), `merge_lora` (folders of adapters), `average` (paths of other
    checkpoints: the mean of all), `fold_weight_norm`, `dequantize`; `edits`, as objects or on one
    line each ("resize pattern=wte size=50304"); those of the file `recipe`. `dtype`, last: the
    type that floating point tensors get; `on_overflow="error"` refuses values that a dtype cannot
    hold, "warn" counts them. `require="safe"` refuses what a scan does not call safe, and other
    checkpoints that edits take tensors from.

    Raises `ReadError`, `StoreError`, `SelectionError`, `Unwritable`, `NotSafe`, `BadArgument`.
    """
    flags = {"strip": strip, "rename": rename, "add_prefix": add_prefix, "drop": drop}
    flags |= {"merge_lora": merge_lora, "average": average}
    _check_arguments(destination_, [only, skip, *flags.values()], require, on_overflow)
    given: list[tuple[str, Any]] = [
        (option, text) for option, texts in flags.items() for text in texts
    ]
    given += [("fold_weight_norm", True)] * fold_weight_norm + [("dequantize", True)] * dequantize
    job_edits = _edits(given, edits)
    if recipe is not None:
        section = _add_recipe(recipe, job_edits, section)
    with open_checkpoint(source, limits=limits) as ckpt, Others(limits) as others:
        target = destination.resolve(destination_, to, shard_size)
        job = Job(ckpt, target, job_edits, others, drop_unsupported, limits)
        job.check_safe(require)
        job.select(section, only, skip)
        job.edit(_wanted_dtype(dtype), refuse=on_overflow == "error")
        job.check_others(require)
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


def _edits(given: list[tuple[str, Any]], edits: Iterable[Edit | str]) -> list[Edit]:
    """Those of the options `given`, then `edits`."""
    edits = list(edits)
    if not given and not any(isinstance(edit, str) for edit in edits):
        return edits  # type: ignore[return-value]
    from tensorkeep.edits.flags import flagged
    from tensorkeep.edits.lines import parse_line

    return flagged(given) + [parse_line(one) if isinstance(one, str) else one for one in edits]


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
        raise BadArgument(
            "only, skip and edits by option",
            expected="a list of texts",
            got="one string",
            remedy="Put it into a list: [...].",
        )
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
