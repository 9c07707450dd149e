"""Why a resumed run is another one: the likely cause, from what differs first and what does not."""

from __future__ import annotations

from tensorkeep.training.proof import ProofReport
from tensorkeep.training.records import BUFFER

_RANDOM = {"generators", "generator"}
_ALONE = {
    "loaders": "the position in the data is another: iterate over run.batches(loader) alone, "
    "without persistent workers, and track what its sampler draws from",
    "scheduler": "the scheduler makes other steps: it is stepped a different number of times, or "
    "built with another base rate or total after resume()",
    "optimizer": "moments or options of the optimizer are others: it is made, or its groups are "
    "changed, after resume()",
    BUFFER: "buffers (of batch norm, say) are others: something ran the model in training mode "
    "outside of the steps, or changed them after resume()",
    "dict": "a value of your own is another: it counts time or attempts, or is changed after "
    "resume()",
    "counter": "the epochs are counted otherwise: go on from run.epoch",
}
_FALLBACK = (
    "what a step computes depends on something that is not tracked: the data (iterate over "
    "run.batches(loader)), a generator, or a variable that begins anew"
)


def unsteady(report: ProofReport) -> str:
    """Where runs differ that nobody interrupted."""
    names = f" It holds {', '.join(report.untracked)}." if report.untracked else ""
    return (
        "the function is not deterministic by itself: two runs that nobody interrupted differ. "
        "Seed every generator in it, make sets and time no part of it, and call "
        f"torch.use_deterministic_algorithms(True).{names}"
    )


def likely(report: ProofReport, kinds: set[str]) -> str:
    """Where only the resumed run differs. `kinds`: of everything that is tracked."""
    differ = {each.kind for each in report.differences}
    if report.untracked:
        return _held(report.untracked)
    if "optimizer" not in kinds and "module" in differ:
        return "no optimizer is tracked: its moments begin anew after resume()"
    if differ <= _RANDOM:
        return (
            "weights are equal, and random numbers are not: something draws from a global "
            "generator after resume() that drew before it in the run that was not interrupted, "
            "or the other way round"
        )
    if len(differ) == 1 and (only := next(iter(differ))) in _ALONE:
        return _ALONE[only]
    if differ & _RANDOM:
        return (
            "random numbers are others: something draws a different number of them, or from a "
            "generator that is neither tracked nor global"
        )
    if "loaders" in differ:
        return _ALONE["loaders"]
    if "scheduler" in differ:
        return _ALONE["scheduler"]
    return _FALLBACK


def _held(untracked: list[str]) -> str:
    loaders = [each for each in untracked if each.endswith(".DataLoader)")]
    others = [each for each in untracked if each not in loaders]
    said = []
    if others:
        names = ", ".join(others)
        said.append(f"the function holds {names}, which is not tracked: pass it to run.track(...)")
    if loaders:
        names = ", ".join(loaders)
        said.append(f"it does not go through run.batches(loader) for {names}, which begins anew")
    return "; ".join(said)
