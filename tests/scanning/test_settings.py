"""`tensorkeep.toml`: what it allows, what it never allows, and what is wrong with it."""

from __future__ import annotations

import hashlib
import re

import pytest

from tensorkeep.errors import BadArgument
from tensorkeep.facts import Finding
from tensorkeep.scanning import baseline
from tensorkeep.scanning.reports import FileReport, ScanReport
from tensorkeep.scanning.settings import Settings, allow, does_harm, parse

DIGEST = "sha256:" + "a" * 64


def finding(rule="pickle/unknown-call", subject="app.Thing", severity="suspicious", **more):
    fields = {"where": "data.pkl", "what": "would call", "why": "why", "remedy": ""}
    return Finding(rule, severity, **{**fields, **more}, member="data.pkl", subject=subject)


def reason(text, found, path="models/a.pth", digest=""):
    return parse(text, "tensorkeep.toml").reason(found, path, digest)


ALLOW = '[[scan.allow]]\nglobal = "app.Thing"\nreason = "ours"\n'


def test_an_empty_file_changes_nothing():
    assert parse("", "x") == Settings() == parse("[scan]\n", "x")


def test_all_settings():
    text = """
        [scan]
        fail_on = "dangerous"
        deep = true
        jobs = 3
        baseline = "known.json"
        exclude = ["old/**", "*.tmp.pth"]
    """
    held = parse(text, "x")
    assert (held.fail_on, held.deep, held.jobs, held.baseline) == (
        "dangerous",
        True,
        3,
        "known.json",
    )
    assert held.excluded("old/a/b.pth")
    assert held.excluded("x.tmp.pth")
    assert not held.excluded("sub/x.tmp.pth")
    assert not held.needs_digests


def test_a_name_is_allowed_exactly():
    assert reason(ALLOW, finding()) == "ours"
    assert reason(ALLOW, finding(rule="pickle/unknown-import")) == "ours"
    for subject in ("app.Thing2", "app.Thing.method", "app", "x.app.Thing", ""):
        assert reason(ALLOW, finding(subject=subject)) is None
    many = '[[scan.allow]]\nglobal = ["app.A", "app.B"]\nreason = "ours"\n'
    assert reason(many, finding(subject="app.B")) == "ours"


@pytest.mark.parametrize(
    "rule",
    ["pickle/dotted-name", "pickle/odd-arguments", "pickle/shadowing-key", "container/ambiguous"],
)
def test_a_name_alone_answers_only_that_nobody_knows_it(rule):
    assert reason(ALLOW, finding(rule=rule)) is None
    exact = ALLOW + f'digest = "{DIGEST}"\n'
    assert reason(exact, finding(rule=rule), digest=DIGEST) == "ours"


def test_by_path_and_by_digest():
    by_path = ALLOW + 'path = "models/**"\n'
    assert reason(by_path, finding(), "models/deep/a.pth") == "ours"
    assert reason(by_path, finding(), "other/a.pth") is None
    by_digest = ALLOW + f'digest = "{DIGEST}"\n'
    assert parse(by_digest, "x").needs_digests
    assert reason(by_digest, finding(), digest=DIGEST) == "ours"
    assert reason(by_digest, finding(), digest="sha256:" + "b" * 64) is None
    assert reason(by_digest, finding(), digest="") is None


def test_a_whole_file_is_accepted_by_its_digest():
    text = f'[[scan.accept]]\ndigest = "{DIGEST}"\nreason = "a test file"\n'
    assert (
        reason(text, finding("pickle/dangerous-call", "os.system"), digest=DIGEST) == "a test file"
    )
    assert reason(text, finding(), digest="") is None


@pytest.mark.parametrize(
    "name",
    ["os.system", "posix.system", "torch.serialization.os.system", "builtins.eval", "nt.popen"],
)
def test_a_name_that_does_harm_needs_the_digest_of_one_file(name):
    assert does_harm(name)
    text = f'[[scan.allow]]\nglobal = "{name}"\nreason = "really"\n'
    for scope in ("", 'path = "models/one.pth"\n'):
        with pytest.raises(BadArgument, match="a digest for"):
            parse(text + scope, "x")
    found = finding("pickle/dangerous-call", name, "dangerous")
    assert reason(text + f'digest = "{DIGEST}"\n', found, digest=DIGEST) == "really"


def test_what_could_not_be_read_always_counts():
    found = [finding(), finding("read/damaged", "", "unknown")]
    report = ScanReport([FileReport("a.pth", "unknown", "torch_zip", found, 0, digest=DIGEST)])
    allow(report, lambda *_: "everything")
    assert report.files[0].allowed == {0: "everything"}
    assert (report.verdict, report.counted, report.allowed) == ("unknown", "unknown", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[scan", "expected TOML"),
        ("[scna]", "got scna"),
        ("scan = 3", "expected a table"),
        ("[scan]\nfailon = 'x'", "got failon"),
        ("[scan]\nfail_on = 'never'", "suspicious or dangerous"),
        ("[scan]\nfail_on = ['dangerous']", "suspicious or dangerous"),
        ("[scan]\ndeep = 'yes'", "true or false"),
        ("[scan]\njobs = 0", "1 or more"),
        ("[scan]\njobs = true", "1 or more"),
        ("[scan]\nbaseline = 3", "a path"),
        ("[scan]\nexclude = 'x'", "expected a list"),
        ("[scan]\nexclude = ['']", "a path pattern"),
        ("[scan]\nexclude = ['a[b']", "a ] for every ["),
        ("[scan]\nexclude = ['a**']", "whole part of the path"),
        ("[scan]\nexclude = ['[z-a]']", "a path pattern"),
        ("[scan.allow]\nglobal = 'a.b'", "a list of tables"),
        ("[scan]\nallow = [3]", "expected a table"),
        ("[[scan.allow]]\nreason = 'x'", "global, an exact name"),
        ("[[scan.allow]]\nglobal = []\nreason = 'x'", "global, an exact name"),
        ("[[scan.allow]]\nglobal = 'app.Thing'", "expected a reason"),
        ("[[scan.allow]]\nglobal = 'app.Thing'\nreason = '  '", "expected a reason"),
        ("[[scan.allow]]\nglobal = 'app.*'\nreason = 'x'", "expected pkg.Class"),
        ("[[scan.allow]]\nglobal = 'Thing'\nreason = 'x'", "expected pkg.Class"),
        ("[[scan.allow]]\nglobal = [3]\nreason = 'x'", "expected pkg.Class"),
        ("[[scan.allow]]\nglobal = 'a.b'\nreason = 'x'\npth = 'y'", "got pth"),
        ("[[scan.allow]]\nglobal = 'a.b'\nreason = 'x'\ndigest = 'abc'", "64 hex digits"),
        (f"[[scan.allow]]\nglobal='a.b'\nreason='x'\npath='y'\ndigest='{DIGEST}'", "got both"),
        ("[[scan.accept]]\nreason = 'x'", "the digest of a file"),
        (f"[[scan.accept]]\ndigest = '{DIGEST}'", "expected a reason"),
    ],
)
def test_every_mistake_is_an_error_with_a_remedy(text, says):
    with pytest.raises(BadArgument, match=re.escape(says)) as caught:
        parse(text, "tensorkeep.toml")
    assert caught.value.subject.startswith("tensorkeep.toml")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("glob", "fits", "not_"),
    [
        ("*.pth", ["a.pth"], ["b/a.pth", "a.pt"]),
        ("**/*.pth", ["a.pth", "b/a.pth", "c/b/a.pth"], ["a.pt"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("[ab]*", ["apple", "b"], ["c"]),
        ("[!ab]", ["c"], ["a"]),
        ("[a-c]", ["b"], ["d", "-"]),
        ("a.b+(c)", ["a.b+(c)"], ["aXb+(c)"]),
        ("/abs/*.pth", ["/abs/a.pth"], ["abs/a.pth"]),
    ],
)
def test_globs(glob, fits, not_):
    held = parse(f"[scan]\nexclude = ['{glob}']", "x")
    assert [path for path in fits if not held.excluded(path)] == []
    assert [path for path in not_ if held.excluded(path)] == []


def report_of(*found, digest=DIGEST):
    return ScanReport(
        [FileReport("a.pth", "suspicious", "torch_zip", list(found), 0, digest=digest)]
    )


def test_a_baseline_knows_what_it_was_written_of_and_nothing_else():
    found = finding()
    known = baseline.read(baseline.write(report_of(found, found)), "b.json")
    assert len(known) == 1
    (file,) = report_of(found).files
    assert baseline.reason(known, found, file) == baseline.KNOWN
    assert baseline.reason(known, finding(subject="app.Other"), file) is None
    assert baseline.reason(known, finding("pickle/unknown-import"), file) is None
    (changed,) = report_of(found, digest="sha256:" + hashlib.sha256(b"x").hexdigest()).files
    (nameless,) = report_of(found, digest="").files
    assert baseline.reason(known, found, changed) is baseline.reason(known, found, nameless) is None


def test_what_could_not_be_read_or_has_no_digest_is_not_in_a_baseline():
    unread = finding("read/damaged", "", "unknown")
    report = report_of(finding(), unread)
    assert len(baseline.read(baseline.write(report), "x")) == 1
    assert baseline.uncovered(report) == 1
    assert baseline.read(baseline.write(report_of(finding(), digest="")), "x") == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"schema": 2, "tool": "tensorkeep", "findings": []}',
        "[" * 100_000,
        '{"schema": 1, "tool": "tensorkeep", "findings": [3]}',
        '{"schema": 1, "tool": "tensorkeep", "findings": [{}]}',
        '{"schema": 1, "tool": "tensorkeep", "findings": null}',
        '{"schema": 1, "tool": "tensorkeep", "findings": '
        '[{"digest": 1, "rule": "", "member": "", "subject": ""}]}',
    ],
)
def test_what_is_no_baseline_is_refused(text):
    with pytest.raises(BadArgument, match="a baseline of schema 1") as caught:
        baseline.read(text, "known.json")
    assert "--write-baseline" in caught.value.remedy
