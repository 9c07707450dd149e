"""`tensorkeep inspect`"""

from __future__ import annotations

import click

from tensorkeep.checkpoints.folding import Node
from tensorkeep.checkpoints.wholes import shown_class
from tensorkeep.cli.options import EXISTING, FORMAT
from tensorkeep.cli.output import Line, many, note_lines, number, short, show, show_json, size
from tensorkeep.errors import escape
from tensorkeep.inspecting import InspectReport, ModuleInfo, inspect, plain

_KINDS = {
    "state_dict": "state dict",
    "training_checkpoint": "training checkpoint",
    "whole_model": "whole model",
    "optimizer": "optimizer state",
    "scheduler": "scheduler state",
    "rng_state": "random number generators",
    "grad_scaler": "gradient scaler state",
    "values": "no tensors",
}
_DEAD_WORTH_SAYING = 0.01
_VALUES_SHOWN = 12
_LONGEST_WHY = 200
# A tree that does not fold is no overview any more: its beginning, and how to have it all.
_ROWS_SHOWN = 240
# What torch's optimizers call the tensors that they keep for each parameter.
_MOMENTS = {"exp_avg", "momentum_buffer", "square_avg", "acc_delta", "exp_inf", "sum", "ax"}


@click.command("inspect")
@click.argument("target", type=EXISTING)
@FORMAT
@click.option("--tensors", is_flag=True, help="List every tensor, one a line.")
@click.option("--values", is_flag=True, help="List every value that is no tensor.")
def command(target: str, form: str, tensors: bool, values: bool) -> int:
    """Show what a checkpoint holds: kind, sections, tensors, ties, values. No tensor is read.

    \b
    Examples:
      tensorkeep inspect model.pth
      tensorkeep inspect --tensors --format json checkpoint-500/
    """
    report = inspect(target)
    if form == "json":
        show_json(report.to_dict(), rows=("sections", "tensors"))
        return 0
    show(_lines(report, tensors, values))
    note_lines(report.notes)
    return 0


def _lines(report: InspectReport, tensors: bool, values: bool) -> list[Line]:
    lines = _head(report)
    lines += _sections(report)
    lines += _every_tensor(report) if tensors else _trees(report)
    lines += _ties(report)
    lines += _unread(report)
    lines += _values(report, values)
    lines += _footer(report)
    return lines


def _head(report: InspectReport) -> list[Line]:
    name = report.path.rstrip("/").rpartition("/")[2] or report.path
    kind = _KINDS.get(report.kind, report.kind)
    parts = f" in {many(len(report.parts), 'part')}" if report.parts else ""
    own = sum(section.parameters for section in report.sections)
    return [
        [(escape(name), "bold"), (f"  {kind}{parts}", "cyan"), (f"  {report.writer}", "dim")],
        [
            (
                f"{size(report.nbytes)}, {many(len(report.tensors), 'tensor')}, "
                f"{number(own)} elements; {size(report.bytes_read)} read",
                "dim",
            )
        ],
    ]


def _sections(report: InspectReport) -> list[Line]:
    if len(report.sections) < 2:
        return []
    total = sum(section.nbytes for section in report.sections) or 1
    width = max(len(short(section.name)) for section in report.sections)
    lines: list[Line] = [""]
    for section in report.sections:
        bar = "█" * max(1, round(24 * section.nbytes / total))
        taken = "  weights" if section.name == report.weights else ""
        lines.append(
            [
                (f"{short(section.name):<{width}}", "bold"),
                (f"  {number(section.tensors):>7} tensors  {size(section.nbytes):>8}  ", ""),
                (f"{bar:<24}", "blue"),
                (f" {100 * section.nbytes / total:3.0f}%", "dim"),
                (taken, "green"),
            ]
        )
    return lines


def _trees(report: InspectReport) -> list[Line]:
    lines: list[Line] = []
    for section, nodes in report.trees.items():
        title = short(section) or "tensors"
        root = [(f"  {short(kind)}", "dim") for kind in (_class_of(report, section),) if kind]
        every = [row for node in _last(nodes) for row in _branch(*node, "")]
        rows = every[:_ROWS_SHOWN]
        width = max((len(prefix) + len(label) for prefix, label, _ in rows), default=0)
        lines += ["", [(title, "bold"), *root]]
        for prefix, label, node in rows:
            room = " " * (width - len(prefix) - len(label))
            lines.append([(prefix, "dim"), (label, ""), (room, ""), *_facts(node)])
        if len(rows) < len(every):
            more = f"and {number(len(every) - len(rows))} more lines; --tensors lists every tensor"
            lines.append([(more, "dim")])
    return lines


def _class_of(report: InspectReport, section: str) -> str:
    """The class of the module that the whole section is, or ""."""
    found = (module.type for module in report.modules if module.name == section)
    return shown_class(next(found, ""))


def _last(nodes: list[Node]) -> list[tuple[Node, bool]]:
    return [(node, at == len(nodes) - 1) for at, node in enumerate(nodes)]


def _branch(node: Node, last: bool, indent: str) -> list[tuple[str, str, Node]]:
    """Rows of (what is drawn before, label, node). The tree's depth is bounded where it is made."""
    label = short(node.label) or "(no name)"
    while len(node.children) == 1 and node.count == 1 and node.ref is None and not node.type:
        # A chain without a fork reads better as one line.
        node = node.children[0]
        label = short(f"{label}.{node.label}")
    rows = [(f"{indent}{'└─' if last else '├─'} ", label, node)]
    if _is_moments(node):
        return rows
    below = indent + ("   " if last else "│  ")
    for child, is_last in _last(node.children):
        rows += _branch(child, is_last, below)
    return rows


def _is_moments(node: Node) -> bool:
    """Whether this is what an optimizer keeps for one parameter: that reads best as one line."""
    leaves = all(child.ref is not None for child in node.children)
    return leaves and any(child.label in _MOMENTS for child in node.children)


def _moments(node: Node) -> list[tuple[str, str]]:
    refs = [(escape(child.label), child.ref) for child in node.children if child.ref is not None]
    largest = max((ref for _, ref in refs), key=lambda ref: ref.record.numel)
    names = ", ".join(label for label, _ in refs)
    return [
        (f"  {largest.dtype:<9}", "cyan"),
        (f" {list(largest.shape)}", ""),
        (f"  {names}", "dim"),
    ]


def _facts(node: Node) -> list[tuple[str, str]]:
    if _is_moments(node):
        return _moments(node)
    if node.ref is not None:
        shape = list(node.ref.shape)
        tie = [(f"  = {short(node.ref.tied_to)}", "magenta")] if node.ref.tied_to else []
        return [(f"  {node.ref.dtype:<9}", "cyan"), (f" {shape!s}", ""), *tie]
    times = f"x{node.count}  " if node.count > 1 else ""
    kind = [(f"  {short(node.type)}", "green")] if node.type else []
    if node.type and not node.tensors:
        return kind
    return [*kind, (f"  {times}{many(node.tensors, 'tensor')}, {size(node.nbytes)}", "dim")]


def _every_tensor(report: InspectReport) -> list[Line]:
    width = max((len(short(tensor.name)) for tensor in report.tensors), default=0)
    lines: list[Line] = [""]
    for tensor in report.tensors:
        tie = [(f"  = {short(tensor.tied_to)}", "magenta")] if tensor.tied_to else []
        lines.append(
            [
                (f"{short(tensor.name):<{width}}", ""),
                (f"  {tensor.dtype:<9}", "cyan"),
                (f" {size(tensor.nbytes):>8}  {list(tensor.shape)}", ""),
                *tie,
            ]
        )
    return lines


def _ties(report: InspectReport) -> list[Line]:
    tied = report.tied
    if not tied:
        return []
    lines: list[Line] = ["", [("tied", "bold"), ("  one tensor under several names", "dim")]]
    for kept, others in list(tied.items())[:10]:
        lines.append("   " + " = ".join(short(name) for name in [kept, *others][:6]))
    if len(tied) > 10:
        lines.append(f"   and {len(tied) - 10} more")
    return lines


def _unread(report: InspectReport) -> list[Line]:
    if not report.unread:
        return []
    lines: list[Line] = ["", [("not read", "bold yellow"), ("  this version cannot", "dim")]]
    lines += [f"   {short(name)}: {escape(why[:_LONGEST_WHY])}" for name, why in report.unread[:10]]
    if len(report.unread) > 10:
        lines.append(f"   and {len(report.unread) - 10} more")
    return lines


def _values(report: InspectReport, every: bool) -> list[Line]:
    # What stands at the top of the file (the epoch, a metric) before the depths of param_groups.
    unread = {name for name, _ in report.unread}
    rows = [row for row in _flat(plain(report.values), "") if row[0] not in unread]
    found = sorted(rows, key=lambda row: row[0].count("."))
    if every:
        found += [row for module in report.modules for row in _attributes(module)]
    if not found:
        return []
    shown = found if every else found[:_VALUES_SHOWN]
    width = min(max(len(name) for name, _ in shown), 48)
    lines: list[Line] = ["", [("values", "bold")]]
    lines += [f"   {short(name):<{width}}  {text}" for name, text in shown]
    if len(shown) < len(found):
        lines.append([(f"   and {len(found) - len(shown)} more: --values", "dim")])
    return lines


def _attributes(module: ModuleInfo) -> list[tuple[str, str]]:
    """The settings of a module saved whole; whether it is training is said where it is not."""
    found = module.attributes if module.training else {**module.attributes, "training": False}
    name = escape(module.name)
    rows = [
        _flat(value, f"{name}.{escape(key)}" if name else escape(key))
        for key, value in found.items()
    ]
    return [row for flat in rows for row in flat]


def _flat(value: object, name: str) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        rows = []
        for key, item in value.items():
            rows += _flat(item, f"{name}.{escape(key)}" if name else escape(key))
        return rows
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return _flat(dict(enumerate(value)), name)
    if value in ({}, []):
        return []
    text = escape(value if isinstance(value, str) else repr(value))
    return [(name, text if len(text) <= 100 else text[:97] + "...")]


def _footer(report: InspectReport) -> list[Line]:
    lines: list[Line] = []
    if report.dead_bytes is not None and report.dead_bytes > _DEAD_WORTH_SAYING * max(
        report.nbytes, 1
    ):
        text = f"  {size(report.dead_bytes)} of storages that no tensor reaches; convert drops them"
        lines += ["", [("dead storage", "bold yellow"), (text, "")]]
    for anomaly in report.anomalies[:10]:
        lines += [[("odd  ", "bold yellow"), (escape(anomaly.what), "")]]
    if report.globals:
        names = ", ".join(escape(name) for name in report.globals[:8])
        more = f" and {len(report.globals) - 8} more" if len(report.globals) > 8 else ""
        lines += ["", [("imports  ", "bold"), (f"{names}{more}", "dim")]]
    return lines
