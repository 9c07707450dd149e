"""What a rule is made of, and the rules about code that is no pickle."""

from __future__ import annotations

from dataclasses import dataclass

from tensorkeep.facts import Severity

ASK = "Ask whoever made the file what it is for; load only the weights, or convert the file."
LEAVE = "Do not load this file with torch.load or pickle; get the weights from somewhere else."
AGAIN = "Get the file again from where it came."
CONVERT = (
    "The weights do not need the class: `tensorkeep convert model.pth model.safetensors` writes "
    "them to a file that runs nothing."
)
WRITE = "Write the file anew with torch.save or tensorkeep convert, and compare the two."


@dataclass(frozen=True, slots=True)
class RuleText:
    """What a rule says wherever it is broken."""

    rule: str
    severity: Severity
    title: str
    why: str
    remedy: str


CODE_RULES = (
    RuleText(
        "container/native-code",
        "suspicious",
        "Compiled code",
        "A loader hands it to the processor, and no reader can tell what it does",
        ASK,
    ),
    RuleText(
        "code/reaches-outside",
        "dangerous",
        "Code that reaches files, processes or memory",
        "What it calls does more than compute",
        LEAVE,
    ),
    RuleText(
        "code/unknown-operator",
        "suspicious",
        "A call of what is not torch's own",
        "What a custom operator does depends on the library that registers it",
        ASK,
    ),
    RuleText(
        "code/unchecked-operator",
        "suspicious",
        "A call of an operator that checks nothing",
        "Given bad indices it reads and writes memory outside its tensors",
        ASK,
    ),
    RuleText(
        "code/python-source",
        "suspicious",
        "Python source that a loader would run",
        "It can do whatever the process may do",
        ASK,
    ),
    RuleText(
        "package/own-code",
        "suspicious",
        "A pickle that imports the package's own source",
        "Loading it runs a module that the package carries",
        ASK,
    ),
)
