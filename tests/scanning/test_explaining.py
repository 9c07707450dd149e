"""Programs in words beside what the rules say about them."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch

import tensorkeep as tk
from tensorkeep.facts import Limits
from tensorkeep.scanning.dangerous import gain


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/version", "3\n")
        for name, data in members.items():
            made.writestr(f"archive/{name}.pkl", data)
    return path


def lines_of(path, **options):
    (file,) = tk.scan(path, explain=True, **options).files
    return [line for program in file.programs for line in program.lines]


def test_without_being_asked_nothing_is_explained(hostile_digits):
    (file,) = tk.scan(hostile_digits).files
    assert file.programs is None
    assert "programs" not in file.to_dict()


def test_the_dangerous_line_is_marked_and_says_what_is_gained(hostile_digits):
    (file,) = tk.scan(hostile_digits, explain=True).files
    (program,) = file.programs
    (found,) = file.findings
    marked = [line for line in program.lines if line.severity != "safe"]
    assert [line.text for line in marked] == [
        "from os import system",
        "os.system('echo this line was printed by the checkpoint')",
    ]
    assert (marked[1].offset, program.where) == (found.offset, found.member)
    assert marked[1].gain == gain("os", "system")
    assert len(program.lines) < 60


def test_an_honest_file_has_no_marks(digits):
    assert {line.severity for line in lines_of(digits)} == {"safe"}


@pytest.mark.parametrize("count", [2, 50, 1000])
def test_every_repetition_that_is_shown_is_marked(tmp_path, count):
    body = b"\x80\x02" + b"cos\nsystem\nU\x02hi\x85R0" * count + b"N."
    lines = lines_of(archive(tmp_path / "x.pth", data=body))
    calls = [line for line in lines if line.text.startswith("os.system")]
    assert len(calls) == min(count, 40)
    assert {line.severity for line in calls} == {"dangerous"}


def test_a_change_that_a_rule_names_is_not_folded_away(tmp_path):
    # The ninth state of the same object is the one that matters.
    state = b"}U\x01aK\x01sb" * 8 + b"}U\x06appendcbuiltins\nint\nsb"
    body = b"\x80\x02cargparse\nNamespace\n)\x81" + state + b"."
    lines = lines_of(archive(tmp_path / "x.pth", data=body))
    marked = [line.text for line in lines if line.severity != "safe"]
    assert any("'append': builtins.int" in text for text in marked), marked


def test_broken_and_nested_programs_and_all_pickles_of_a_container(tmp_path):
    broken = b"\x80\x02cos\nsystem\nU\x02hi\x85R\xff"
    other = b"\x80\x02cos\ngetpid\n)R."
    path = archive(tmp_path / "x.pth", data=broken, other=other)
    (file,) = tk.scan(path, explain=True).files
    told = {program.where: [line.text for line in program.lines] for program in file.programs}
    assert any("breaks off here" in text for text in told["archive/data.pkl"])
    assert "os.system('hi')" in told["archive/data.pkl"][1]


def test_in_json_every_line_has_its_four_keys(hostile_digits):
    report = tk.scan(hostile_digits, explain=True).to_dict()
    (program,) = json.loads(json.dumps(report))["files"][0]["programs"]
    assert set(program) == {"where", "start", "end", "protocol", "lines"}
    assert all(set(line) == {"offset", "text", "severity", "gain"} for line in program["lines"])


def test_limits_hold_for_an_explanation_too(tmp_path):
    body = b"\x80\x02cos\nsystem\nU\x02hi\x85R" + b"N" * 100_000 + b"."
    lines = lines_of(archive(tmp_path / "x.pth", data=body), limits=Limits(max_stack=100))
    assert "os.system('hi')" in lines[1].text
    assert "breaks off here" in lines[-1].text


def cases(root):
    """The files of the hostile corpus that run something, apart from those that take long."""
    for facts in sorted((root / "tests" / "corpus" / "hostile").glob("*/expected.json")):
        case = json.loads(facts.read_text())
        if case["kind"] != "I" and any(rule.startswith("pickle/") for rule in case["rules"]):
            yield from (path for path in sorted(facts.parent.iterdir()) if path != facts)


def test_every_dangerous_step_of_the_hostile_corpus_has_a_marked_line(root):
    checked = 0
    for path in cases(root):
        for file in tk.scan(path, explain=True).files:
            marked = {
                (program.where, line.offset)
                for program in file.programs or ()
                for line in program.lines
                if line.severity == "dangerous"
            }
            for found in file.findings:
                # The rule on amplification is about values too, which are not steps.
                step = found.rule.startswith("pickle/") and found.rule != "pickle/amplification"
                if step and found.severity == "dangerous" and found.offset is not None:
                    assert (found.member, found.offset) in marked, (file.path, found)
                    checked += 1
    assert checked > 100


def test_classes_and_lists_of_a_script_weigh_what_the_scan_says_of_them(tmp_path):
    # Made in words of Python they would be unknown names, forty of which are shown.
    layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(30)))
    torch.jit.script(layers).save(str(tmp_path / "x.pt"))
    texts = [line.text for line in lines_of(tmp_path / "x.pt")]
    assert tk.scan(tmp_path / "x.pt").verdict == "safe"
    assert 0 < sum("Linear.__new__()" in text for text in texts) <= 8
    assert any("more like these" in text for text in texts)


def test_a_class_that_a_script_does_not_define_has_lines_of_its_own(tmp_path):
    made = b"c__torch__.torch.classes.my\nOwn\n)\x810" * 30
    body = b"\x80\x02" + made + b"c__torch__\nNet\n)\x81}b."
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as new:
        new.writestr("x/data.pkl", body)
        new.writestr("x/constants.pkl", b"\x80\x02ctorch.jit._pickle\nbuild_intlist\n](K\1e\x85R.")
        new.writestr("x/code/__torch__.py", "class Net(Module):\n  pass\n")
        new.writestr("x/version", "3\n")
    lines = lines_of(tmp_path / "x.pt")
    assert sum("Own.__new__()" in line.text for line in lines) == 30
    marked = {line.text for line in lines if line.severity != "safe"}
    assert {text for text in marked if "Own" not in text} == set()
