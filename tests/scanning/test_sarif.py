"""SARIF: valid by the standard's own schema, and what services make of it."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import jsonschema
import pytest

import tensorkeep as tk
from tensorkeep.facts import Finding
from tensorkeep.scanning.reports import FileReport, ScanReport
from tensorkeep.scanning.sarif import sarif, uri
from tensorkeep.scanning.words import RULES

SCHEMA = json.loads(
    (Path(__file__).parent / "sarif_schema" / "sarif-schema-2.1.0.json").read_text("utf-8")
)
VALIDATOR = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker())


def log_of(report, folder=Path("/project"), **options):
    made = json.loads(json.dumps(sarif(report, version="1.2.3", folder=folder, **options)))
    VALIDATOR.validate(made)
    return made["runs"][0]


def report_with(path="model.pth", **changes):
    fields = {
        "rule": "pickle/unknown-call",
        "severity": "suspicious",
        "where": "archive/data.pkl, byte 10",
        "what": "would call app.Thing()",
        "why": "why",
        "remedy": "remedy.",
        "member": "archive/data.pkl",
        "offset": 10,
        "subject": "app.Thing",
    }
    found = Finding(**{**fields, **changes})
    return ScanReport([FileReport(path, found.severity, "torch_zip", [found], 0)])


def test_the_schema_refuses_what_is_wrong():
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({"version": "2.1.0", "runs": [{"results": []}]})


def test_every_file_of_the_hostile_corpus_is_valid(root):
    run = log_of(tk.scan(root / "tests" / "corpus" / "hostile"), folder=root)
    levels = {result["level"] for result in run["results"]}
    assert levels == {"error", "warning"}
    uris = {place["location"]["uri"] for place in run["artifacts"] if "parentIndex" not in place}
    assert "tests/corpus/hostile/system/model.pth" in uris
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(RULES)
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"].isprintable()


def test_a_clean_file_and_nothing_at_all(digits):
    for report in (tk.scan(digits), ScanReport()):
        run = log_of(report)
        assert run["results"] == []
        assert run["invocations"][0] == {
            "executionSuccessful": True,
            "toolExecutionNotifications": [],
        }


def test_a_finding_in_a_member_is_a_place_in_a_nested_artifact():
    run = log_of(report_with())
    (result,) = run["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "model.pth", "uriBaseId": "SRCROOT", "index": 0}
    }
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "archive/data.pkl"
    inside = result["relatedLocations"][0]["physicalLocation"]
    assert inside["region"] == {"byteOffset": 10, "byteLength": 1}
    nested = run["artifacts"][inside["artifactLocation"]["index"]]
    assert (nested["parentIndex"], nested["location"]["uri"]) == (0, "archive/data.pkl")


def test_a_finding_in_the_file_itself_has_its_byte():
    (result,) = log_of(report_with(member="", offset=77))["results"]
    region = result["locations"][0]["physicalLocation"]["region"]
    assert region == {"byteOffset": 77, "byteLength": 1}


def test_what_could_not_be_read_is_a_failed_invocation(tmp_path):
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04" + bytes(50))
    run = log_of(tk.scan(tmp_path), folder=tmp_path)
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    notices = invocation["toolExecutionNotifications"]
    assert {notice["associatedRule"]["id"] for notice in notices} == {"read/damaged"}
    assert notices[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "cut.pth"


def prints(report):
    return [result["partialFingerprints"] for result in log_of(report)["results"]]


def test_a_fingerprint_stays_when_bytes_move_and_differs_otherwise():
    same = prints(report_with())
    assert prints(report_with(offset=99, where="archive/data.pkl, byte 99")) == same
    odd = {"subject": "", "rule": "container/hidden-bytes"}
    assert prints(report_with(what="36 bytes", **odd)) == prints(report_with(what="3 bytes", **odd))
    for changes in ({"subject": "app.Other"}, {"member": "x"}, {"rule": "pickle/unknown-import"}):
        assert prints(report_with(**changes)) != same
    assert prints(report_with(path="other.pth")) != same
    twice = report_with()
    twice.files[0].findings *= 2
    assert len({json.dumps(each) for each in prints(twice)}) == 2


def test_a_real_file_keeps_its_fingerprints_when_something_is_put_in_front(tmp_path):
    made = []
    for length in (0, 500):
        with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
            body = b"\x80\x02" + pickle.dumps("x" * length, 2)[2:-1]
            body += b"0cos\nsystem\nU\x02hi\x85R."
            archive.writestr("archive/data.pkl", body)
        made.append(prints(tk.scan(tmp_path / "x.pth")))
    assert made[0] == made[1] != []


def test_what_is_allowed_is_suppressed_with_its_reason():
    report = report_with()
    report.files[0].allowed[0] = "ours \x1b[31m"
    (result,) = log_of(report)["results"]
    (suppression,) = result["suppressions"]
    assert suppression["justification"].startswith("ours")
    assert suppression["status"] == "accepted"


def test_the_pages_of_the_rules_are_linked_where_the_documentation_is_published():
    assert "helpUri" not in log_of(ScanReport())["tool"]["driver"]["rules"][0]
    rules = log_of(ScanReport(), documentation="https://example.org/docs/")["tool"]["driver"][
        "rules"
    ]
    assert rules[0]["helpUri"] == "https://example.org/docs/rules/pickle-dangerous-call.html"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a b/ü#%.pth", {"uri": "a%20b/%C3%BC%23%25.pth", "uriBaseId": "SRCROOT"}),
        ("/project/sub/x.pth", {"uri": "sub/x.pth", "uriBaseId": "SRCROOT"}),
        ("/other/x y.pth", {"uri": "file:///other/x%20y.pth"}),
        ("../x.pth", {"uri": "file:///x.pth"}),
        ("C:x.pth", {"uri": "C%3Ax.pth", "uriBaseId": "SRCROOT"}),
        ("https://host/a b.pth?x=1", {"uri": "https://host/a%20b.pth?x=1"}),
        ("\udcff.pth", {"uri": "%FF.pth", "uriBaseId": "SRCROOT"}),
        ("line\nbreak.pth", {"uri": "line%0Abreak.pth", "uriBaseId": "SRCROOT"}),
    ],
)
def test_paths_become_uris(path, expected):
    assert uri(path, Path("/project")) == expected
