"""A checkpoint's value, or a model in it, with objects of trusted classes: asked, then made."""

from __future__ import annotations

import torch

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path, name_of
from tensorkeep.dtypes import DType
from tensorkeep.errors import Unsupported, Untrusted
from tensorkeep.facts import Finding, Limits, Verdict
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Lens, TensorRecord
from tensorkeep.live import compounds
from tensorkeep.live.building import TrustingNest
from tensorkeep.live.reading import How, put_together
from tensorkeep.live.sharing import Sharing
from tensorkeep.live.tensors import torch_dtype
from tensorkeep.live.trusting import Trust, can_be_trusted
from tensorkeep.scanning import judge

_SHOWN = 12


class Tensors:
    """The tensors of a checkpoint, read at once; those that nobody could list, at the end."""

    def __init__(self, ckpt: Checkpoint, how: How) -> None:
        self._how, self._ckpt = how, ckpt
        self._made: dict[int, torch.Tensor] = {}
        self._late = Sharing(how.to, how.dtype)
        first = Sharing(how.to, how.dtype)
        for path, record in ckpt.index.tensors:
            self._add(first, record, name_of(path))
        for record in ckpt.index.swept.records:
            self._add(first, record, record.storage.key)
        first.read(mapped=how.mapped, reporter=how.reporter)

    def _add(self, sharing: Sharing, record: TensorRecord, name: str) -> None:
        # What cannot be read is an error where it is wanted, and nowhere else.
        if id(record) not in self._made and not record.problem and _has_type(record.dtype):
            self._made[id(record)] = sharing.tensor(record, name)

    def tensor(self, record: TensorRecord, path: Path) -> object:
        """What `Nest` asks for."""
        known = self._made.get(id(record))
        return self._late.tensor(record, name_of(path)) if known is None else known

    def compound(self, value: Compound, path: Path) -> object:
        """What `Nest` asks for."""
        if compounds.can_build(value):
            return put_together(value, name_of(path), self._ckpt, self._how)
        return compounds.bare_storage(value)

    def finish(self) -> None:
        """Read what was not listed."""
        self._late.read(mapped=self._how.mapped)


def _has_type(dtype: DType) -> bool:
    try:
        torch_dtype(dtype)
    except Unsupported:
        return False
    return True


def ask(ckpt: Checkpoint, raw: object, lens: Lens, trust: Trust, limits: Limits) -> TrustingNest:
    """What would be made of `raw`, and what would not; nothing is."""
    nest = TrustingNest(_no_tensor, _unbuilt, ckpt, limits, trust, dry=True)
    nest.build(raw, lens)
    return nest


def make(
    ckpt: Checkpoint, raw: object, lens: Lens, trust: Trust, how: How
) -> tuple[object, TrustingNest]:
    """The value of `raw`, and the walk that made it."""
    tensors = Tensors(ckpt, how)
    nest = TrustingNest(tensors.tensor, tensors.compound, ckpt, how.limits, trust)
    made = nest.build(raw, lens)
    tensors.finish()
    return made, nest


def weigh(ckpt: Checkpoint, asked: TrustingNest, *, audit: bool) -> tuple[Verdict, list[Finding]]:
    """The verdict on the file where what is trusted is nothing unknown; with `audit` a scan's."""
    found = judge(ckpt, audit=audit)[1]
    return asked.trust.weigh(found, () if asked.withheld else asked.approved)


def model(
    ckpt: Checkpoint, raw: object, lens: Lens, asked: TrustingNest, how: How
) -> torch.nn.Module:
    """The module that `raw` stands for. Raises `Untrusted` before anything is made."""
    require_all(ckpt, asked)
    made, nest = make(ckpt, raw, lens, asked.trust, how)
    require_all(ckpt, nest)
    if isinstance(made, torch.nn.Module):
        return made
    raise Unsupported(ckpt.path, expected="an nn.Module", got=f"a {type(made).__name__}")


def _no_tensor(_record: TensorRecord, _path: Path) -> object:
    return None


def _unbuilt(value: Compound, _path: Path) -> object:
    return None if compounds.can_build(value) or value.layout == "storage" else value


def require_all(ckpt: Checkpoint, nest: TrustingNest) -> None:
    """Raises `Untrusted` with every name that nobody trusts."""
    if not nest.withheld:
        return
    first, *more = nest.withheld.items()
    shown = (first, *more[: _SHOWN - 1])
    listed = ", ".join(f"{name} ({why})" if why else name for name, why in shown)
    more_left = len(nest.withheld) - _SHOWN
    raise Untrusted(
        ckpt.path,
        expected="a model made only of torch.nn and of classes that you trust by name",
        got=listed + (f" and {more_left} more" if more_left > 0 else ""),
        remedy=_remedy(nest),
    )


def _remedy(nest: TrustingNest) -> str:
    """The names that are missing, where all can be named: no advice to trust what does harm."""
    weights = "take the weights without any class: tensorkeep convert."
    if not all(map(can_be_trusted, nest.withheld)):
        return weights.capitalize()
    wanted = sorted({*nest.trust.names, *nest.withheld})
    return f"If you trust the code of these, name them: trust={wanted}; or {weights}"
