"""The rules' names, severities and sentences, in one table, and the collecting of findings.

A rule's identifier never changes: it stands in SARIF files and in people's settings. The
documentation page of the rules is made from `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorkeep.facts import Finding
from tensorkeep.scanning._rule_texts import AGAIN, ASK, CODE_RULES, CONVERT, LEAVE, WRITE, RuleText

__all__ = ["RULES", "Collector", "Place", "RuleText", "finding", "shorten"]

_TABLE = (
    RuleText(
        "pickle/dangerous-call",
        "dangerous",
        "A call that does harm",
        "The function is known to reach outside the file",
        LEAVE,
    ),
    RuleText(
        "pickle/dangerous-import",
        "dangerous",
        "A name that does harm",
        "No model needs this name, and whoever holds it can call it",
        LEAVE,
    ),
    RuleText(
        "pickle/changes-global",
        "dangerous",
        "A change to something outside the file",
        "It would change a class, a function or a shared value for the whole process",
        LEAVE,
    ),
    RuleText(
        "pickle/writes-storage",
        "dangerous",
        "A write into the bytes of a tensor",
        "No writer does this, and it can reach memory outside the tensor",
        LEAVE,
    ),
    RuleText(
        "pickle/amplification",
        "dangerous",
        "A small file that asks for much time or memory",
        "Loading it would exhaust the machine",
        LEAVE,
    ),
    RuleText(
        "pickle/unknown-call",
        "suspicious",
        "A call that is not on the allowlist",
        "What this function or class does when it is called is not known here",
        ASK,
    ),
    RuleText(
        "pickle/unknown-class",
        "suspicious",
        "An object of a class that is not on the allowlist",
        "Loading imports the module of the class and runs its code, which is not in the file",
        CONVERT,
    ),
    RuleText(
        "pickle/kept-hook",
        "suspicious",
        "A function that a module would call later",
        "Hooks run when the module is called, trained, saved or loaded",
        CONVERT,
    ),
    RuleText(
        "pickle/unknown-import",
        "suspicious",
        "A name that is not on the allowlist",
        "Importing a module runs it, and what this one does is not known here",
        ASK,
    ),
    RuleText(
        "pickle/dotted-name",
        "suspicious",
        "A name that walks from object to object",
        "A dotted name can reach any function that a module has imported",
        ASK,
    ),
    RuleText(
        "pickle/attribute-lookup",
        "suspicious",
        "An attribute looked up by getattr",
        "Protocol 2 writes nested classes so, and an attack writes any function so",
        ASK,
    ),
    RuleText(
        "pickle/call-of-value",
        "suspicious",
        "A call of something computed",
        "What is called is made while the file is read, so no list can name it",
        ASK,
    ),
    RuleText(
        "pickle/odd-arguments",
        "suspicious",
        "An allowlisted name, used as no writer uses it",
        "The name is harmless only with the arguments that honest writers give it",
        WRITE,
    ),
    RuleText(
        "pickle/odd-effect",
        "suspicious",
        "A change to an object that no writer makes",
        "The object's class may run code when it is changed so",
        WRITE,
    ),
    RuleText(
        "pickle/slot-state",
        "suspicious",
        "Attributes set one by one through setattr",
        "Slot state calls setattr, which sets what plain state cannot reach",
        ASK,
    ),
    RuleText(
        "pickle/shadowing-key",
        "suspicious",
        "An attribute that hides a method",
        "Later steps, or later code, would call what the file put there",
        LEAVE,
    ),
    RuleText(
        "pickle/extension",
        "suspicious",
        "A name out of copyreg's extension registry",
        "What the number means depends on the process that loads the file",
        ASK,
    ),
    RuleText(
        "pickle/misplaced-reference",
        "suspicious",
        "A function kept as a value",
        "The name is harmless when the file calls it; here it is kept for others to call",
        ASK,
    ),
    RuleText(
        "pickle/persistent-id",
        "suspicious",
        "A reference that torch does not write",
        "Torch writes ('storage', type, key, location, length) with a storage type of its own",
        WRITE,
    ),
    RuleText(
        "pickle/odd-structure",
        "suspicious",
        "A pickle laid out as no pickler does",
        "Honest pickles are written by programs that never do this; scanners have been fooled so",
        WRITE,
    ),
    RuleText(
        "container/ambiguous",
        "suspicious",
        "Two readers would read different bytes",
        "What is scanned by one program may not be what another one loads",
        WRITE,
    ),
    RuleText(
        "container/bad-checksum",
        "suspicious",
        "A checksum that does not match",
        "The bytes were changed after they were written, by accident or on purpose",
        AGAIN,
    ),
    RuleText(
        "container/hidden-bytes",
        "suspicious",
        "Bytes that belong to nothing",
        "Something can be hidden where no member of the container lies",
        WRITE,
    ),
    RuleText(
        "container/hidden-pickle",
        "suspicious",
        "A pickle where none belongs",
        "A program that looks there would run it",
        ASK,
    ),
    RuleText(
        "container/path-traversal",
        "dangerous",
        "A name that leads out of the folder",
        "Unpacking or following it would touch files elsewhere",
        LEAVE,
    ),
    RuleText(
        "container/odd",
        "suspicious",
        "A container that no honest writer makes",
        "Other programs may read it in another way",
        WRITE,
    ),
    RuleText(
        "container/amplification",
        "dangerous",
        "A small file that unpacks to a huge one",
        "Reading it would exhaust the machine",
        LEAVE,
    ),
    *CODE_RULES,
    RuleText(
        "tensor/out-of-bounds",
        "dangerous",
        "A tensor that reaches outside its bytes",
        "A loader that believes it would read or corrupt memory",
        LEAVE,
    ),
    RuleText(
        "tensor/odd",
        "suspicious",
        "A tensor described as no writer does",
        "Loaders may differ in what they make of it",
        WRITE,
    ),
    RuleText(
        "read/not-a-checkpoint",
        "unknown",
        "No checkpoint",
        "No format that is known here begins like this",
        "Check that this is the file you mean.",
    ),
    RuleText(
        "read/damaged",
        "unknown",
        "Not readable to the end",
        "What lies behind the damage was not seen",
        AGAIN,
    ),
    RuleText(
        "read/limit",
        "unknown",
        "Too costly to read to the end",
        "What lies behind the limit was not seen",
        "If you trust the file, pass larger Limits.",
    ),
    RuleText(
        "read/unsupported",
        "unknown",
        "Not yet readable",
        "Nothing here reads this part of the file",
        "Load it where nothing can be harmed, or ask its maker for another format.",
    ),
    RuleText(
        "read/failed",
        "unknown",
        "Not read",
        "The bytes could not be had",
        "Make the file readable and scan it again.",
    ),
)

RULES: dict[str, RuleText] = {text.rule: text for text in _TABLE}


def page(rule: str) -> str:
    """The documentation page of a rule, below the root of the documentation."""
    return f"rules/{rule.replace('/', '-')}.html"


EXAMPLES = 3
_NAMES = 40
_LONGEST = 300


def shorten(text: str, limit: int = _LONGEST) -> str:
    """`text`, or its beginning and "..."."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a finding is: a member of the container (or "", the file itself) and a byte in it."""

    member: str
    offset: int | None = None

    def __str__(self) -> str:
        byte = "" if self.offset is None else f"byte {self.offset}"
        return ", ".join(part for part in (self.member, byte) if part)


def finding(rule: str, where: str | Place, what: str, why: str = "", subject: str = "") -> Finding:
    """The finding of `rule` at `where`; `why` replaces the rule's own sentence."""
    text = RULES[rule]
    place = where if isinstance(where, Place) else Place(where)
    return Finding(
        rule,
        text.severity,
        str(place),
        shorten(what),
        why or text.why,
        text.remedy,
        place.member,
        place.offset,
        subject,
    )


class Collector:
    """Findings in the order met; what repeats is counted, so that a flood hides nothing.

    Each rule keeps `EXAMPLES` findings for each of a few dozen names. Severity belongs to the
    rule: however many suspicious names a file mentions, a dangerous one still gets its place.
    """

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._seen: dict[tuple[str, str], int] = {}
        self._names: dict[str, int] = {}
        self._more: dict[tuple[str, str], tuple[int, Place]] = {}

    def add(
        self, rule: str, name: str, where: Place, what: Callable[[], str], why: str = ""
    ) -> None:
        """Keep a finding about `name`, or count it; `what` is asked for only if it is kept."""
        name = shorten(name)
        key = (rule, name)
        count = self._seen.get(key, 0)
        if count == 0:
            if self._names.get(rule, 0) >= _NAMES:
                return self._count((rule, ""), where)
            self._names[rule] = self._names.get(rule, 0) + 1
        self._seen[key] = count + 1
        if count >= EXAMPLES:
            return self._count(key, where)
        self._findings.append(finding(rule, where, what(), why, name))
        return None

    def _count(self, key: tuple[str, str], where: Place) -> None:
        count, first = self._more.get(key, (0, where))
        self._more[key] = (count + 1, first)

    def result(self) -> list[Finding]:
        """Every finding kept, and one that counts for each kind of what was not."""
        counted = [
            finding(
                rule,
                where,
                f"the same {count} more times" + (f": {name}" if name else ""),
                subject=name,
            )
            for (rule, name), (count, where) in self._more.items()
        ]
        return [*self._findings, *counted]
