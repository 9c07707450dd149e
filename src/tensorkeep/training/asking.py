"""What `Run.batches` was asked for, and the sentences about it."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

from tensorkeep.errors import BadArgument, DoesNotFit, TensorkeepWarning
from tensorkeep.training.loading import Loading

Tree = dict[str, Any]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}\Z")


@dataclass(frozen=True, slots=True)
class Asked:
    """What `Run.batches` was asked for."""

    loader: Any
    name: str
    exact: bool
    seeded: bool


def named(name: object) -> None:
    """Raises `BadArgument` for what is no name of a loader."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise BadArgument(
            f"batches(name={name!r})", expected="a name of letters, digits, - and _", got=repr(name)
        )


def called(asked: Asked) -> str:
    """As messages name it."""
    return f"batches({type(asked.loader).__qualname__}, name={asked.name!r})"


def warn(asked: Asked, text: str) -> None:
    """Say it, and go on."""
    warnings.warn(TensorkeepWarning(f"{called(asked)}: {text}"), stacklevel=5)


def say_cost(asked: Asked, batches: int) -> None:
    """What going on costs, before it is spent."""
    if batches:
        warn(
            asked,
            f"{batches} batches are loaded a second time, to go on where the run was; with "
            "per_sample_seed=True none would be",
        )


def refuse_changes(asked: Asked, changed: list[str]) -> None:
    """Raises `DoesNotFit`, or warns."""
    if asked.exact:
        raise DoesNotFit(
            called(asked),
            expected="the loader that the run is in the middle of an epoch with",
            got="; ".join(changed),
            remedy="Build it as the run did, or pass exact=False, which begins the epoch anew.",
        )
    warn(asked, f"the epoch begins anew: {'; '.join(changed)}")


def same_order(asked: Asked, loading: Loading, saved: Tree) -> None:
    """Compare what was drawn again with what the run had drawn. Raises `DoesNotFit`, or warns."""
    digest = loading.digest
    if digest is None or digest.hex() == saved["digest"]:
        return
    if asked.exact:
        raise DoesNotFit(
            called(asked),
            expected=f"the {saved['taken']} batches in the order that the run had",
            got="another order",
            remedy="Build the sampler as the run did, and track the generator that it draws from.",
        )
    warn(asked, "the order of the batches is not the one that the run had")
