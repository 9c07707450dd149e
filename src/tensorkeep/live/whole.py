"""`load_model`: a whole model out of a file, made only from classes that the caller names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.errors import BadArgument, NotSafe, NotSafeWarning, UnknownSection, escape
from tensorkeep.facts import Limits
from tensorkeep.formats.contents import Graft, Items, Lens, TensorRecord
from tensorkeep.live.guard_log import TRUSTED_ONLY
from tensorkeep.live.loading import require_torch
from tensorkeep.pickles import Call

if TYPE_CHECKING:
    import torch

    from tensorkeep.live.devices import Device


def load_model(
    path: Source,
    trust: Iterable[str | type] = (),
    *,
    section: str | None = None,
    device: Device = "cpu",
    require: str | None = None,
    limits: Limits | None = None,
) -> torch.nn.Module:
    """The `nn.Module` that `torch.save(model)` wrote, made of classes that you name.

    `trust`: exact names as the file writes them ("pkg.module.Class"), or the classes; the modules
    of torch.nn need not be named. Importing them runs their code, making objects runs their
    `__new__` and `__setstate__`: that is what is trusted, and no other code is run. `section`: the
    top-level key of a model that stands in a dict. `device`: where its tensors go. `require="safe"`
    refuses a file that a scan does not call safe when the trusted names are taken as known;
    without it such a file is a `NotSafeWarning`.

    Raises `Untrusted` with every name that is missing, before anything is imported or made;
    `NotSafe`; `BadArgument` and `UnknownSection` where the file has no model there; `Unsupported`
    where a class does not take what the file holds for it; and what reading raises.
    """
    require_torch()
    from tensorkeep.live.assembling import ask, model, require_all, weigh
    from tensorkeep.live.devices import Destinations
    from tensorkeep.live.reading import How
    from tensorkeep.live.trusting import Trust

    check_require(require)
    trusted = Trust(trust)
    how = How(Destinations(device), limits=limits or Limits())
    with open_checkpoint(path, limits=limits) as ckpt:
        raw, lens = _root(ckpt, section)
        _require_object(ckpt, raw, lens)
        asked = ask(ckpt, raw, lens, trusted, how.limits)
        verdict, findings = weigh(ckpt, asked, audit=require is not None)
        if verdict != "safe":
            if require is not None:
                raise NotSafe(
                    ckpt.path,
                    expected="a file that a scan calls safe",
                    got=f"{verdict}: {findings[0].what}",
                    remedy="See what the file would do: tensorkeep scan.",
                )
            require_all(ckpt, asked)
            text = f"{ckpt.path} is {verdict}: {findings[0].what}; {TRUSTED_ONLY}"
            warnings.warn(escape(text), NotSafeWarning, stacklevel=2)
        return model(ckpt, raw, lens, asked, how)


def check_require(require: object) -> None:
    """Raises `BadArgument` for what `require` cannot be."""
    if require not in ("safe", None):
        raise BadArgument("require", expected="'safe' or None", got=repr(require))


def _root(ckpt: Checkpoint, section: str | None) -> tuple[object, Lens]:
    """The value that is wanted as the file has it, and how to look at it."""
    lens = ckpt.contents.lens
    raw = ckpt.contents.root
    if section is None:
        return raw, lens
    value = lens(raw)
    pairs = value.pairs if isinstance(value, Items) else []
    every = list(value.items()) if isinstance(value, dict) else pairs
    parts = {key: part for key, part in every if isinstance(key, str)}
    if section not in parts:
        named = ", ".join(repr(key) for key in parts) or "none: it holds no dict"
        raise UnknownSection(ckpt.path, expected=f"one of {named}", got=f"section {section!r}")
    found = lens(parts[section])
    if isinstance(found, Graft):
        return found.contents.root, found.contents.lens
    return parts[section], lens


def _require_object(ckpt: Checkpoint, raw: object, lens: Lens) -> None:
    """Raises `BadArgument` for a file of tensors and dicts, which has nothing to be made."""
    value = lens(raw)
    if isinstance(raw, Call) and not isinstance(value, Items | TensorRecord):
        return
    whole = [str(found.path[0]) for found in ckpt.index.modules if len(found.path) == 1]
    named = " or ".join(f"section={name!r}" for name in dict.fromkeys(whole))
    raise BadArgument(
        ckpt.path,
        expected="a model that was saved whole",
        got=f"a {ckpt.kind.replace('_', ' ')}",
        remedy=f"Name it: {named}." if named else "Load its tensors: tensorkeep.load.",
    )
