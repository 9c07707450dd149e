"""What `prove_resume` found: what was compared, what differs first, and the likely cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PROVEN, DIFFERS, UNSTEADY = "proven", "differs", "not deterministic"
# Moments of a kill: what lies between two saves is lost, or what is being written, or nothing.
NEXT, WRITING, SAVED = "before the next save", "while it was written", "when it was saved"
MOMENTS = (NEXT, WRITING, SAVED)
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL at the first save of a step >= `step`; `resumed`: the step that was resumed from.

    `resumed` is 0 if nothing was whole yet, and the run began anew.
    """

    step: int
    moment: str
    resumed: int = 0

    def sentence(self) -> str:
        """For people."""
        went_on = f"resumed at step {self.resumed}" if self.resumed else "begun anew"
        return f"killed at step {self.step}, {self.moment}; {went_on}"


@dataclass(frozen=True, slots=True)
class Difference:
    """`component`: what was tracked under this name, of this `kind`; `where`: a tensor or value."""

    component: str
    kind: str
    where: str

    def sentence(self) -> str:
        """For people."""
        return f"{self.where} ({self.kind})"


@dataclass(slots=True)
class ProofReport:
    """Whether a run that was killed and resumed ends as one that never was, bit for bit.

    `verdict`: "proven", "differs", or "not deterministic" where two runs that nobody interrupted
    differ already. `step`: the first one at which something differs, or the last one that was
    compared. `differences`: all at that step, what comes first in a training step first. `cause`:
    the likely one in words. `tensors`, `values`: so many were compared at the last step;
    `compared`: the steps that both runs have saved.
    """

    function: str
    steps: int
    seed: int
    verdict: str = PROVEN
    step: int = 0
    kills: list[Kill] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    cause: str = ""
    tensors: int = 0
    values: int = 0
    compared: list[int] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Whether nothing differs."""
        return self.verdict == PROVEN

    @property
    def first(self) -> Difference | None:
        """The first component that differs."""
        return self.differences[0] if self.differences else None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": 1,
            "proven": self.proven,
            "verdict": self.verdict,
            "function": self.function,
            "steps": self.steps,
            "seed": self.seed,
            "step": self.step,
            "kills": [
                {"step": k.step, "moment": k.moment, "resumed": k.resumed} for k in self.kills
            ],
            "differences": [
                {"component": d.component, "kind": d.kind, "where": d.where}
                for d in self.differences
            ],
            "cause": self.cause,
            "tensors": self.tensors,
            "values": self.values,
            "compared": self.compared,
            "untracked": self.untracked,
        }

    def sentences(self) -> list[str]:
        """For people, without the verdict."""
        told = [kill.sentence() for kill in self.kills]
        if self.first is None:
            return [*told, f"{self._amount()} of step {self.step} are equal bit for bit"]
        told.append(f"first at step {self.step}: {self.first.sentence()}")
        rest = self.differences[1:]
        shown = ", ".join(each.where for each in rest[:_SHOWN])
        more = f" and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else ""
        told += [f"also: {shown}{more}"] if rest else []
        return [*told, f"likely: {self.cause}"]

    def _amount(self) -> str:
        on_the_way = len(self.compared) - 1
        also = f" (and those of {on_the_way} steps before it)" if on_the_way else ""
        return f"{self.tensors} tensors and {self.values} values{also}"

    def __str__(self) -> str:
        return "\n  ".join([f"{self.verdict}: {self.function}", *self.sentences()])
