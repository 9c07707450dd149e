"""`tensorkeep scan --safe-globals`: what torch's restricted unpickler would need, in words."""

from __future__ import annotations

from collections.abc import Iterator

from tensorkeep.cli.output import Line, show, show_json
from tensorkeep.errors import BadArgument, escape
from tensorkeep.scanning.weights_only import SafeGlobals, safe_globals

_CONVERT = "tensorkeep convert {} DST.safetensors takes the tensors without running anything"


def show_needed(targets: tuple[str, ...], form: str) -> int:
    """Write what the files need; 0 if torch takes all of them, with the list or without."""
    if form == "sarif":
        remedy = "Leave out one of them."
        raise BadArgument("--safe-globals", expected="no --format sarif", got="both", remedy=remedy)
    told = [safe_globals(target) for target in targets]
    if form == "json":
        show_json({"schema": 1, "files": [one.to_dict() for one in told]})
    else:
        show(line for one in told for line in _lines(one))
    return int(not all(one.loads or one.enough for one in told))


def _lines(told: SafeGlobals) -> Iterator[Line]:
    if told.loads:
        yield [("loads      ", "bold green"), (escape(told.path), "bold")]
        yield [("  ", ""), ("torch.load(weights_only=True) takes it as it is", "")]
        return
    label, style = ("needs      ", "bold yellow") if told.enough else ("refused    ", "bold red")
    yield [(label, style), (escape(told.path), "bold")]
    for one in told.needed:
        mark, style = ("harmless  ", "green") if one.harmless else ("yours?    ", "bold yellow")
        yield [(f"  {mark}", style), (escape(one.name), "")]
        yield [("    why     ", "dim"), (escape(one.why), "")]
    for obstacle in told.obstacles:
        yield [("  obstacle  ", "bold red"), (escape(obstacle), "")]
    yield from _ways(told)


def _ways(told: SafeGlobals) -> Iterator[Line]:
    if told.verdict == "dangerous":
        yield [("  do        ", "bold red"), ("Allow nothing: the scan calls it dangerous.", "")]
        return
    if told.obstacles:
        yield [("  do        ", "bold"), ("add_safe_globals alone will not do.", "")]
    else:
        yield [("  either    ", "bold"), ("allow these names before torch.load:", "")]
        yield ""
        yield from (f"    {line}" for line in told.code.splitlines())
        yield ""
    words = "  or        " if not told.obstacles else "            "
    yield [(words, "bold"), (_CONVERT.format(escape(told.path)), "")]
