"""A scan's report as SARIF 2.1.0, the format of code scanning services. Facts in, dict out.

Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0" with errata 01.
A member of a container is an artifact nested in the file (its offsets count from the member's own
beginning), and the file is the location, as that is what a reviewer can open.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tensorkeep.errors import escape
from tensorkeep.facts import Finding
from tensorkeep.scanning.reports import FileReport, ScanReport
from tensorkeep.scanning.words import RULES, RuleText, page

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_BASE = "SRCROOT"
_LEVELS = {"dangerous": "error", "unknown": "error", "suspicious": "warning"}
# What GitHub sorts alerts by: the score of a rule, from 0 to 10.
_SCORES = {"dangerous": "9.5", "unknown": "7.0", "suspicious": "5.0"}
_FINGERPRINT = "tensorkeepFinding/v1"
_INDEXES = {rule: at for at, rule in enumerate(RULES)}


def sarif(
    report: ScanReport,
    *,
    version: str,
    folder: Path,
    documentation: str = "",
) -> dict[str, Any]:
    """The log of one run. `folder` is what paths are told relative to.

    `documentation` is the address that the pages of the rules lie under, "" if there is none.
    Findings that do not count are suppressed, with the reason as the justification.
    """
    run = _Run(folder)
    for file in report.files:
        run.add(file)
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver(version, documentation)},
                "columnKind": "utf16CodeUnits",
                "originalUriBaseIds": {
                    _BASE: {"description": {"text": "The folder in which the scan was started."}}
                },
                "invocations": [
                    {
                        "executionSuccessful": not run.notices,
                        "toolExecutionNotifications": run.notices,
                    }
                ],
                "artifacts": run.artifacts,
                "results": run.results,
                "properties": {
                    "verdict": report.verdict,
                    "depth": report.depth,
                    "skipped": report.skipped,
                    "bytesNotRead": report.bytes_not_read,
                },
            }
        ],
    }


def _driver(version: str, documentation: str) -> dict[str, Any]:
    driver: dict[str, Any] = {
        "name": "tensorkeep",
        "version": version,
        "semanticVersion": version,
        "rules": [_rule(rule, documentation) for rule in RULES.values()],
    }
    if documentation:
        driver["informationUri"] = documentation
    return driver


def _rule(rule: RuleText, documentation: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": rule.rule,
        "name": "".join(part.capitalize() for part in re.split(r"[/-]", rule.rule)),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.why}."},
        "help": {
            "text": f"{rule.why}. {rule.remedy}",
            "markdown": f"**{rule.title}.** {rule.why}.\n\n{rule.remedy}",
        },
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {
            "tags": ["security", rule.rule.partition("/")[0]],
            "severity": rule.severity,
            "security-severity": _SCORES[rule.severity],
        },
    }
    if documentation:
        made["helpUri"] = f"{documentation.rstrip('/')}/{page(rule.rule)}"
    return made


class _Run:
    """What grows with each file: artifacts, results and notices of what could not be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._members: dict[tuple[int, str], int] = {}
        self._seen: Counter[str] = Counter()
        self.artifacts: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []

    def add(self, file: FileReport) -> None:
        """The file, and everything that was found in it."""
        place = uri(file.path, self._folder)
        index = len(self.artifacts)
        self.artifacts.append({"location": dict(place), "roles": ["analysisTarget"]})
        for at, found in enumerate(file.findings):
            result = self._result(found, {**place, "index": index})
            reason = file.allowed.get(at)
            if reason is not None:
                external = {"kind": "external", "status": "accepted", "justification": reason}
                result["suppressions"] = [external]
            self.results.append(result)
            if found.severity == "unknown":
                self.notices.append(_notice(found, {**place, "index": index}))

    def _result(self, found: Finding, place: dict[str, Any]) -> dict[str, Any]:
        physical: dict[str, Any] = {"artifactLocation": place}
        location: dict[str, Any] = {"physicalLocation": physical}
        result: dict[str, Any] = {
            "ruleId": found.rule,
            "ruleIndex": _INDEXES[found.rule],
            "level": _LEVELS[found.severity],
            "message": {"text": _text(found)},
            "locations": [location],
            "partialFingerprints": {_FINGERPRINT: self._fingerprint(found, place["uri"])},
            "properties": {"severity": found.severity, "subject": escape(found.subject)},
        }
        if found.member:
            location["logicalLocations"] = [
                {"fullyQualifiedName": escape(found.member), "kind": "member"}
            ]
            result["relatedLocations"] = [self._inside(found, place["index"])]
        elif found.offset is not None:
            physical["region"] = {"byteOffset": found.offset, "byteLength": 1}
        return result

    def _inside(self, found: Finding, outer: int) -> dict[str, Any]:
        """The byte in the member, as a place in an artifact that lies in another one."""
        key = (outer, found.member)
        if key not in self._members:
            self._members[key] = len(self.artifacts)
            member = {"uri": quote(os.fsencode(escape(found.member)), safe="/")}
            self.artifacts.append({"location": member, "parentIndex": outer})
        physical: dict[str, Any] = {"artifactLocation": {"index": self._members[key]}}
        if found.offset is not None:
            physical["region"] = {"byteOffset": found.offset, "byteLength": 1}
        return {"id": 1, "physicalLocation": physical, "message": {"text": escape(found.where)}}

    def _fingerprint(self, found: Finding, place: str) -> str:
        """The same for as long as the finding is, wherever in the file its bytes move."""
        about = found.subject or re.sub(r"\d[\d,]*", "#", found.what)
        text = "\0".join((found.rule, place, found.member, about))
        self._seen[text] += 1
        whole = f"{text}\0{self._seen[text]}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(whole).hexdigest()[:32]


def _text(found: Finding) -> str:
    place = f" (at {escape(found.where)})" if found.where else ""
    return f"{escape(found.what)}{place}. {escape(found.why)}. {escape(found.remedy)}".strip()


def _notice(found: Finding, place: dict[str, Any]) -> dict[str, Any]:
    return {
        "level": "error",
        "message": {"text": escape(found.what)},
        "associatedRule": {"id": found.rule, "index": _INDEXES[found.rule]},
        "locations": [{"physicalLocation": {"artifactLocation": place}}],
    }


def uri(path: str, folder: Path) -> dict[str, Any]:
    """Where a file lies: below `folder` relative to it, elsewhere whole; percent-encoded."""
    if re.match(r"[a-z][a-z0-9+.-]*://", path):
        return {"uri": quote(os.fsencode(path), safe="/:%?=&@+,;~")}
    whole = os.path.normpath(folder / path)
    relative = os.path.relpath(whole, folder)
    if relative == ".." or relative.startswith(f"..{os.sep}"):
        return {"uri": "file://" + quote(os.fsencode(whole))}
    return {"uri": quote(os.fsencode(relative)), "uriBaseId": _BASE}
