"""Draws the README's measured part from bench/results/*.json, and from nothing else.

python bench/report.py            write it between the marks in README.md
python bench/report.py --print    only show it
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
FIGURES = ("inspecting", "converting", "scanning", "pickling", "curves")
# Drawn once they have been measured.
LATER = ("diffing", "quantizing", "loading", "load_into", "matching", "saving", "resuming")
# Takes the other scanners and ten minutes, and is run by itself: `make bench-scanners`.
APART = ("scanners",)


def load(folder: Path = HERE / "results") -> dict[str, dict[str, Any]]:
    """The results that are there, by figure."""
    found = {}
    for name in (*FIGURES, *LATER, *APART):
        path = folder / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text())
    return found


def render(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: one table of comparisons, one of growth, what was missed, and the machine."""
    if not results:
        return "Not measured yet: `make bench`."
    rows: list[tuple[str, str, str, str]] = []
    for name, draw in (
        ("inspecting", inspecting),
        ("converting", converting),
        ("diffing", diffing),
        ("quantizing", quantizing),
        ("loading", loading),
        ("load_into", load_into),
        ("matching", matching),
        ("saving", saving),
        ("resuming", resuming),
        ("scanning", scanning),
        ("pickling", pickling),
    ):
        if name in results and not (name == "scanning" and "scanners" in results):
            rows += draw(results[name])
    parts = [table(("", "tensorkeep", "beside it, in the same run", ""), rows)]
    if "curves" in results:
        parts.append(growth(results["curves"]["curves"]))
    if "scanners" in results:
        parts.append(scanners(results["scanners"], results.get("scanning")))
        parts.append(alone(results["scanners"]["cases"]))
    parts.append(missed(results))
    parts.append(footer(results))
    return "\n\n".join(part for part in parts if part)


def inspecting(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for size, case in result["cases"].items():
        warm, cold = by_name(case["warm"]), by_name(case["cold"])
        ours, torch = warm["tensorkeep inspect"], warm["torch.load(mmap=True)"]
        title = f"`inspect` a `.pth` of {size}"
        rows.append(compared(title, ours, "`torch.load(mmap=True)`", torch, case["times_faster"]))
        ours, torch = cold["tensorkeep inspect"], cold["torch.load(mmap=True)"]
        rows.append(
            (
                "its bytes read from the device, cold",
                volume(ours["read_kb"]),
                f"`torch.load(mmap=True)` {volume(torch['read_kb'])}",
                "",
            )
        )
        if "safe_open" in warm:
            ours, peer = warm["tensorkeep inspect"], warm["safe_open"]
            times = peer["wall_ms"] / ours["wall_ms"]
            name = "`safe_open` of the same tensors as safetensors"
            rows.append(compared("", ours, name, peer, times))
    return rows


def converting(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    case = result["cases"]["2 GB"]
    by = by_name(case["rows"])
    rows = []
    for title, ours, others in (
        (
            "`convert` 2 GB to safetensors, flushed to the device",
            "tensorkeep convert",
            {
                "torch.load + save_file + fsync": "times_faster_fsync",
                "torch.load(mmap) + save_file + fsync": "times_faster_mmap_fsync",
                "cp + fsync": "times_cp_fsync",
            },
        ),
        (
            "the same, not flushed (tensorkeep always does; switched off for this line)",
            "tensorkeep convert, no fsync",
            {
                "torch.load + save_file": "times_faster",
                "torch.load(mmap) + save_file": "times_faster_mmap",
                "cp": "times_cp",
            },
        ),
    ):
        for name, key in others.items():
            times = 1 / case[key] if key.startswith("times_cp") else case[key]
            rows.append(compared(title, by[ours], f"`{name}`", by[name], times))
            title = ""
    eight = by_name(result["cases"]["8 GB"]["rows"])["tensorkeep convert"]
    rows.append(("`convert` 8 GB: memory at the peak", f"{eight['peak_mb']:.0f} MB", "", ""))
    return rows


def diffing(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, case in result["cases"].items():
        by = by_name(case["rows"])
        for ours, peer, words, key in (
            ("tensorkeep diff, .pth", "torch loop", "a loop in torch", "times_faster"),
            ("tensorkeep diff, safetensors", "numpy loop", "in numpy", "times_faster_numpy"),
        ):
            title = f"`diff` of two {'.pth' if peer == 'torch loop' else 'safetensors'}, {name}"
            rows.append(compared(title, by[ours], words, by[peer], case[key]))
    return rows


def quantizing(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, case in result["cases"].items():
        by = by_name(case["rows"])
        for ours, peer, words, key in (
            ("tensorkeep quantize, .pth", "torch loop", "a loop in torch", "times_faster"),
            ("tensorkeep quantize, safetensors", "numpy loop", "in numpy", "times_faster_numpy"),
        ):
            for suffix, flushed in (("", "flushed to the device"), (", no fsync", "not flushed")):
                end = "_fsync" if not suffix else ""
                kind = ".pth" if peer == "torch loop" else "safetensors"
                title = f"`quantize` a {kind} to int8, {name}, {flushed}"
                rows.append(
                    compared(title, by[ours + suffix], words, by[peer + suffix], case[key + end])
                )
    return rows


def loading(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Times inside the processes: importing torch would drown them."""
    rows = []
    for name, case in result["cases"].items():
        by = by_name(case["rows"])
        for peer, times in case["times_faster"].items():
            mine, other = by[case["ours_for"][peer]], by[peer]
            title = f"`load`, {name}" + (
                ", safetensors" if mine["name"].endswith("tensors") else ""
            )
            words = f"{peer.replace('_', ' ')}: {other['inside_ms']:.0f} ms"
            rows.append((title, f"{mine['inside_ms']:.0f} ms", words, faster(times)))
    rows += [(f"`load`: {way}", "", f"not measured: {why}", "") for way, why in missing(result)]
    return rows


def missing(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What could not be measured, and why."""
    return [(way.replace("_", " "), why) for way, why in result.get("missing", {}).items()]


def load_into(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    by, rows = by_name(result["rows"]), []
    ours = by["empty_weights, load_into(mmap)"]
    title = "a model of 1.06 billion parameters from its class and a file, mapped"
    mine = duration(ours["inside_ms"])
    for name, times in result["times_faster"].items():
        if "torch.load" in name:
            other = f"{name}: {duration(by[name]['inside_ms'])}"
            rows.append((title, mine, other, faster(times)))
            title = mine = ""
    layer = result["layer"]
    used = f"{layer['touched_mb']:.0f} MB of the file in memory for a layer of "
    title = f"a mapped model of {volume(layer['bytes'] / 1e3)}, one layer of it used"
    rows.append((title, duration(layer["inside_ms"]), used + f"{layer['layer_mb']:.0f} MB", ""))
    return rows


def saving(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    by = by_name(result["rows"])
    ours, size = by["tk.Run.save"], volume(result["bytes"] / 1e3)
    copy, waits = by["one copy in memory"], by["DCP async_save, synced"]
    rows = []
    for name, row in (("one copy in memory", copy), ("DCP `async_save`", waits)):
        title = f"`Run.save` of {size}: what the step waits for" if not rows else ""
        mine = duration(ours["stall_ms"]) if not rows else ""
        times = row["stall_ms"] / ours["stall_ms"]
        rows.append((title, mine, f"{name}: {duration(row['stall_ms'])}", faster(times)))
    title, mine = "until it is durable, with a digest of each tensor", duration(ours["durable_ms"])
    for name, times in result["times_faster"].items():
        other = f"{name}: {duration(by[name]['durable_ms'])}"
        rows.append((title, mine, other, faster(times)))
        title = mine = ""
    return rows


def resuming(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    by, rows = by_name(result["rows"]), []
    title = f"`Run.resume` of {volume(result['bytes'] / 1e3)} to the first step, verified"
    mine = duration(by["tk.Run.resume"]["inside_ms"])
    for name, times in result["times_faster"].items():
        rows.append((title, mine, f"{name}: {duration(by[name]['inside_ms'])}", faster(times)))
        title = mine = ""
    return rows


def matching(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The search stands beside nobody's: what it may take was set before."""
    rows = []
    for name, taken in result["cases"].items():
        by = by_name(taken)
        words = f"the search alone {duration(by['search']['inside_ms'])}"
        rows.append((f"`match` of {name}", cost(by["tensorkeep match"]), words, ""))
    return rows


def scanning(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The two large files, while there is no table of all scanners that has them."""
    rows = []
    for name, case in result["cases"].items():
        by = by_name(case["rows"])
        title = f"`scan` {name}"
        for peer, times in case["times_faster"].items():
            other = f"{peer} {result['peers'][peer]}"
            rows.append(compared(title, by["tensorkeep scan"], other, by[peer], times))
            title = ""
    return rows


def scanners(result: dict[str, Any], large: dict[str, Any] | None) -> str:
    """Everybody's column: totals over the same files, and what they took."""
    rows = result["rows"]
    hostile, honest = (f"{result['files'][kind]:,}" for kind in ("hostile", "honest"))
    lines = [
        (f"{hostile} hostile files: flagged", *(str(r["hostile"]["flagged"]) for r in rows)),
        ("called clean", *(called_clean(r["hostile"]) for r in rows)),
        ("skipped, refused or not ended", *(str(r["hostile"]["not read"]) for r in rows)),
        (f"{honest} honest files: called clean", *(str(r["honest"]["clean"]) for r in rows)),
        ("false alarms", *(str(r["honest"]["flagged"]) for r in rows)),
        ("skipped, refused or not ended", *(str(r["honest"]["not read"]) for r in rows)),
        ("one file, median", *(duration(r["one_by_one"]["median_ms"]) for r in rows)),
        ("memory at the peak", *(f"{r['one_by_one']['peak_mb']:,.0f} MB" for r in rows)),
        ("all of them in one run", *(spent(r["at_once"]) for r in rows)),
    ]
    for name, case in (large or {"cases": {}})["cases"].items():
        by = by_name(case["rows"])
        found = [
            by.get("tensorkeep scan" if r["name"] == "tensorkeep" else r["name"]) for r in rows
        ]
        lines.append((f"`scan` of {name}", *(spent(row) for row in found)))
    return table(("", *(f"{r['name']} {r['version']}" for r in rows)), lines)


def called_clean(counts: dict[str, int]) -> str:
    """How many; and how many still when the bytes of the tensors are read too."""
    deep = counts.get("clean with --deep", counts["clean"])
    more = "" if deep == counts["clean"] else f" ({deep} with `--deep`)"
    return f"{counts['clean']}{more}"


def spent(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "stopped_after_s" in row:
        return f"stopped after {row['stopped_after_s']:.0f} s"
    return cost(row)


def alone(cases: dict[str, Any]) -> str:
    """Figures of the scan that stand beside nobody's."""
    rows = []
    for name, case in cases.items():
        row = case["rows"][0]
        size = f" ({volume(case['bytes'] / 1e3)})" if "bytes" in case else ""
        rows.append((f"{name}{size}", cost(row), str(row.get("exit", 0))))
    return table(("alone", "", "exit code"), rows)


def pickling(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    by = by_name(result["rows"])
    ours = by["tensorkeep.pickles.run"]
    title = f"the pickle of {result['tensors']:,} tensors, read inside a process"
    mine = f"{duration(ours['inside_ms'])}, {result['kb_per_tensor']:.1f} kB a tensor"
    rows = []
    for name, times in result["times_faster"].items():
        other = f"`{name}` {duration(by[name]['inside_ms'])}"
        rows.append((title, mine, other, faster(times)))
        title = mine = ""
    return rows


def growth(curves: dict[str, Any]) -> str:
    """Whole processes again, small tensors, by their number."""
    heads = [f"{point['tensors']:,} tensors" for point in next(iter(curves.values()))]
    rows = []
    for verb, points in curves.items():
        cells = [f"{duration(p['wall_ms'])}, {p['peak_mb']:.0f} MB" for p in points]
        rows.append((f"`{verb}`", *cells))
    return table(("", *heads), rows)


def missed(results: dict[str, dict[str, Any]]) -> str:
    """What was aimed at and not reached in this run; "" if there is nothing."""
    found = [
        f"{name}, {row['what']}: {row['got']:g} ({row['bound']} {row['wanted']:g})"
        for name, result in results.items()
        for row in result["targets"]
        if not row["met"]
    ]
    return "Targets missed in this run: " + "; ".join(found) + "." if found else ""


def footer(results: dict[str, dict[str, Any]]) -> str:
    """The machine. All figures are taken on one; if they were not, each date is named."""
    first = next(iter(results.values()))["machine"]
    loads = [value for result in results.values() for value in result["load_average"].values()]
    dates = sorted({result["machine"]["date"] for result in results.values()})
    return (
        "Times are medians of fresh processes that took turns, from start to exit, with the file "
        "in the page cache unless it says cold; a single run where a peer took more than 8 s; "
        f"memory is the peak of the process; {how(results)} "
        f"{first['cpu']}, {first['cores']} cores, {first['memory_gb']:.0f} GB, "
        f"Linux {first['kernel']}, {first['file_system']}, Python {first['python']}, "
        f"torch {first['torch']}, safetensors {first['safetensors']}, {' and '.join(dates)}; "
        f"load average {min(loads):.1f} to {max(loads):.1f}. "
        "Every run is in [`bench/results`](bench/results)."
    )


def how(results: dict[str, dict[str, Any]]) -> str:
    """What the words about scanners mean."""
    if "scanners" not in results:
        return "an exit code is what a scanner says of a benign file."
    return (
        "a scanner's word on a file is the exit code that its documentation gives, one process "
        "for each file; its median and peak are of whole processes over an even sample."
    )


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def compared(
    title: str, ours: dict[str, Any], name: str, peer: dict[str, Any], times: float
) -> tuple[str, str, str, str]:
    if "stopped_after_s" in peer:
        return title, cost(ours), f"{name}: stopped after {peer['stopped_after_s']:.0f} s", ""
    said = f", exit code {peer['exit']}" if "exit" in peer else ""
    return title, cost(ours), f"{name} {cost(peer)}{said}", faster(times)


def cost(row: dict[str, Any]) -> str:
    return f"{duration(row['wall_ms'])}, {row['peak_mb']:,.0f} MB"


def duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 995 else f"{ms / 1e3:.1f} s"


def volume(kb: float) -> str:
    if kb >= 1e6:
        return f"{kb / 1e6:.1f} GB"
    return f"{kb:.0f} kB" if kb < 1000 else f"{kb / 1e3:.1f} MB"


def faster(times: float) -> str:
    if 0.95 <= times < 1.05:
        return "as fast"
    if times < 1:
        return f"{1 / times:.1f}x slower"
    return f"**{times:.0f}x** faster" if times >= 10 else f"**{times:.1f}x** faster"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def replaced(text: str, part: str) -> str:
    """`text` with `part` between the marks. Raises ValueError if they are not there once."""
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md must hold {START} and {END} once each")
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{part}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--print", action="store_true", help="show it, and write nothing")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    asked = parser.parse_args()
    part = render(load(asked.results))
    if asked.print:
        print(part)
        return
    README.write_text(replaced(README.read_text(), part))


if __name__ == "__main__":
    main()
