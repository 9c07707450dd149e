"""`tensorkeep runs`: training checkpoints side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tensorkeep.checkpoints.keeping import (
    KeepBest,
    KeepEvery,
    KeepLast,
    KeepWithin,
    Policy,
    moment,
    policy_from,
)
from tensorkeep.checkpoints.run_contents import saved_at
from tensorkeep.checkpoints.runs import RunFolder, Saved
from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import Line, many, note_lines, show, show_json, size, talk
from tensorkeep.errors import BadArgument, NotFound, TensorkeepError, escape

_AGE = re.compile(r"(\d+(?:\.\d+)?)([mhd])\Z")
_MINUTES = {"m": 1, "h": 60, "d": 1440}
_SHOWN = 4


@click.group("runs")
def command() -> None:
    """Training checkpoints: list, show, verify and prune them.

    \b
    Examples:
      tensorkeep runs list runs/exp1
      tensorkeep runs verify runs/exp1
    """


@command.command("list")
@click.argument("run", type=EXISTING)
@click.option("--verify", is_flag=True, help="Read every byte; else sizes and the manifest.")
@FORMAT
def list_(run: str, verify: bool, form: str) -> int:
    """The checkpoints of RUN: step, age, size, metrics, and whether they are whole.

    Exit code: 0, 1 if one is damaged, 2 if they could not be listed.

    \b
    Examples:
      tensorkeep runs list runs/exp1
      tensorkeep runs list --verify --format json runs/exp1
    """
    rows = [_row(saved, _damage if verify else _structure) for saved in _saved(run)]
    if form == "json":
        show_json({"schema": 1, "path": run, "checkpoints": rows})
    else:
        show(_table(rows, verify=verify))
    return 1 if any(row["damaged"] for row in rows) else 0


def _saved(run: str) -> list[Saved]:
    """Those of a run; a folder in which there is none is an error."""
    folder, _, which = run.rpartition("@") if not Path(run).exists() else (run, "", "")
    opened = RunFolder(Path(folder or run))
    if which:
        return [saved_at(opened, which)]
    if not opened.path.is_dir():
        raise NotFound(run, expected="the folder of a run", got="none")
    found = opened.saved()
    if not found and not opened.settings():
        raise NotFound(run, expected="the folder of a run", got="no checkpoint in it")
    return found


def _damage(saved: Saved) -> list[dict[str, str]]:
    return [
        {"file": d.file, "tensor": d.tensor, "expected": d.expected, "got": d.got}
        for d in saved.damage()
    ]


def _structure(saved: Saved) -> list[dict[str, str]]:
    return [
        {"file": d.file, "tensor": d.tensor, "expected": d.expected, "got": d.got}
        for d in saved.damage(deep=False)
    ]


def _row(saved: Saved, damage: Callable[[Saved], list[dict[str, str]]]) -> dict[str, Any]:
    found = damage(saved)
    row: dict[str, Any] = {"step": saved.step, "path": str(saved.path), "damaged": found}
    try:
        made = saved.manifest
    except TensorkeepError:
        return row
    return row | {
        "created": made.created,
        "bytes": made.nbytes,
        "epoch": made.epoch,
        "parent": made.parent,
        "metrics": {k: v if v - v == 0 else repr(v) for k, v in made.metrics.items()},
    }


def _table(rows: list[dict[str, Any]], *, verify: bool) -> list[Line]:
    if not rows:
        return ["no checkpoint yet"]
    whole = "verified" if verify else "whole"
    names = list(dict.fromkeys(name for row in rows for name in row.get("metrics", {})))[:_SHOWN]
    heads = [f"{escape(name)[:14]:>14}" for name in names]
    lines: list[Line] = [[(f"{'step':>10}  {'age':>8}  {'size':>9}  {''.join(heads)}", "dim")]]
    for row in rows:
        age = _age(row["created"]) if "created" in row else "?"
        amount = size(row["bytes"]) if "bytes" in row else "?"
        values = "".join(f"{_value(row.get('metrics', {}).get(name)):>14}" for name in names)
        bad = row["damaged"]
        state = (f"  damaged: {_first(bad)}", "bold red") if bad else (f"  {whole}", "green")
        lines.append([(f"{row['step']:>10}  {age:>8}  {amount:>9}  {values}", ""), state])
    if not verify:
        lines.append([("sizes and manifests were compared; --verify reads every byte", "dim")])
    return lines


def _first(damaged: list[dict[str, str]]) -> str:
    first = damaged[0]
    what = escape(first["file"]) + (f", {escape(first['tensor'])}" if first["tensor"] else "")
    return what + (f" and {len(damaged) - 1} more" if len(damaged) > 1 else "")


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value or "")


def _age(created: str) -> str:
    seconds = (datetime.now(UTC) - moment(created)).total_seconds()
    if seconds < 0:
        return "in future"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@command.command("show")
@click.argument("run", type=EXISTING)
@FORMAT
def show_(run: str, form: str) -> int:
    """Where the newest checkpoint of RUN, or RUN@STEP, or RUN@best, comes from: its manifest.

    \b
    Examples:
      tensorkeep runs show runs/exp1
      tensorkeep runs show --format json runs/exp1@best
    """
    found = _saved(run)
    if not found:
        raise NotFound(run, expected="a checkpoint", got="none yet")
    saved = found[0] if len(found) == 1 else saved_at(RunFolder(Path(run)), "newest")
    content = saved.manifest.to_dict()
    if form == "json":
        show_json({"schema": 1, "path": str(saved.path), **content})
        return 0
    files = content.pop("files")
    lines: list[Line] = [[(escape(saved.path), "bold")]]
    lines += [f"  {escape(key):<12}  {escape(value)}" for key, value in content.items()]
    for name, each in files.items():
        tensors = many(len(each["tensors"]), "tensor") if "tensors" in each else ""
        lines.append(f"  {escape(name):<28}{size(each['bytes']):>10}  {tensors}".rstrip())
    show(lines)
    return 0


@command.command("verify")
@click.argument("run", type=EXISTING)
@FORMAT
def verify_(run: str, form: str) -> int:
    """Compare every byte of RUN's checkpoints, or of RUN@STEP, with its digest.

    Exit code: 0 if all are whole, 1 if one is damaged, 2 if they could not be read.

    \b
    Examples:
      tensorkeep runs verify runs/exp1
      tensorkeep runs verify runs/exp1@1200
    """
    rows = [_row(saved, _damage) for saved in _saved(run)]
    damaged = [row for row in rows if row["damaged"]]
    if form == "json":
        show_json({"schema": 1, "ok": not damaged, "path": run, "checkpoints": rows})
        return 1 if damaged else 0
    lines: list[Line] = []
    for row in rows:
        good = not row["damaged"]
        word = ("whole      ", "bold green") if good else ("damaged    ", "bold red")
        lines.append([word, (escape(row["path"]), "bold")])
        for each in row["damaged"]:
            name = f"{escape(each['tensor'])} in " if each["tensor"] else ""
            lines.append(
                f"  {name}{escape(each['file'])}: expected {escape(each['expected'])}, "
                f"got {escape(each['got'])}"
            )
    show(lines or ["no checkpoint yet"])
    return 1 if damaged else 0


@command.command("prune")
@click.argument("run", type=EXISTING)
@click.option("--keep-last", type=int, metavar="N", help="Keep the N newest.")
@click.option("--keep-best", metavar="METRIC", help="Keep the best by this metric.")
@click.option("--mode", type=click.Choice(["min", "max"]), default="min", show_default=True)
@click.option("--keep-every", type=int, metavar="STEPS", help="Keep steps that STEPS divides.")
@click.option("--keep-within", metavar="AGE", help="Keep the last 90m, 24h or 7d.")
@click.option("--delete", is_flag=True, help="Delete; without it, say what would be deleted.")
@FORMAT
def prune(run: str, delete: bool, form: str, **wanted: Any) -> int:  # noqa: ANN401
    """Delete checkpoints of RUN that a policy does not keep; the run's own unless you name one.

    What stays is read back first, damaged ones do not count, and the newest whole one always
    stays. Without --delete nothing is touched.

    \b
    Examples:
      tensorkeep runs prune runs/exp1 --keep-last 3
      tensorkeep runs prune runs/exp1 --keep-best val_loss --delete
    """
    from tensorkeep.training.locking import Lock
    from tensorkeep.training.retention import Retention

    folder = RunFolder(Path(run))
    _saved(run)
    retention = Retention(folder, _policy(folder, **wanted))
    if delete:
        lock = Lock(folder.path)
        try:
            steps = retention.apply()
        finally:
            lock.release()
    else:
        steps = [saved.step for saved in retention.plan()]
    if form == "json":
        show_json({"schema": 1, "path": run, "deleted": delete, "steps": steps})
        return 0
    word = "deleted" if delete else "would delete"
    show([f"{word} step {step}" for step in steps] or ["nothing to delete"])
    if steps and not delete:
        talk([[("note: ", "yellow"), ("nothing was deleted; --delete does it", "")]])
    return 0


def _policy(
    folder: RunFolder,
    keep_last: int | None,
    keep_best: str | None,
    mode: str,
    keep_every: int | None,
    keep_within: str | None,
) -> Policy:
    parts: list[Policy] = []
    if keep_last is not None:
        parts.append(KeepLast(keep_last))
    if keep_best is not None:
        parts.append(KeepBest(keep_best, "max" if mode == "max" else "min"))
    if keep_every is not None:
        parts.append(KeepEvery(keep_every))
    if keep_within is not None:
        parts.append(_within(keep_within))
    if not parts:
        return policy_from(folder.settings().get("keep", {"all": True}), str(folder.path))
    made = parts[0]
    for part in parts[1:]:
        made = made | part
    return made


def _within(text: str) -> KeepWithin:
    match = _AGE.match(text)
    if not match:
        raise BadArgument("--keep-within", expected="an age such as 90m, 24h or 7d", got=repr(text))
    return KeepWithin(minutes=float(match[1]) * _MINUTES[match[2]])


@command.command("set-lr")
@click.argument("run", type=EXISTING)
@click.argument("lr", metavar="LR[,LR...]")
@click.option(
    "--mode",
    type=click.Choice(["base", "now"]),
    default="base",
    show_default=True,
    help="The schedule's base, or the rate of the next step.",
)
@click.option("--step", type=int, metavar="STEP", help="Of this step; the newest whole one else.")
@click.option("--optimizer", metavar="NAME", help="Which one, where a run has several.")
@click.option("--scheduler", metavar="NAME", help="Which one, where a run has several.")
@FORMAT
def set_lr(run: str, lr: str, form: str, **wanted: Any) -> int:  # noqa: ANN401
    """Change the learning rate in a checkpoint of RUN: groups, schedule and all.

    One LR for all groups, which keep their ratios, or one for each. The momentum stays. The
    checkpoint is replaced whole, and its manifest says what it was before.

    \b
    Examples:
      tensorkeep runs set-lr runs/exp1 3e-4
      tensorkeep runs set-lr runs/exp1 1e-3,1e-4 --mode now --step 1200
    """
    from tensorkeep.training.learning_rate import offline

    edited = offline(run, _rates(lr), **wanted)
    if form == "json":
        show_json(
            {
                "schema": 1,
                "path": str(edited.path),
                "step": edited.step,
                "optimizer": edited.optimizer,
                "scheduler": edited.scheduler,
                "before": edited.before,
                "after": edited.after,
                "notes": edited.notes,
            }
        )
        return 0
    note_lines(edited.notes)
    for at, (before, after) in enumerate(zip(edited.before, edited.after, strict=True)):
        show(
            [f"step {edited.step}, {escape(edited.optimizer)}, group {at}: {before:g} -> {after:g}"]
        )
    return 0


def _rates(text: str) -> float | list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise BadArgument("LR", expected="a number such as 3e-4", got=repr(text)) from None
    return rates[0] if len(rates) == 1 else rates
