"""What a run is beside its state: written with each checkpoint, compared before the next begins.

A fingerprint is JSON: each kind of fact (`KINDS`) has its values by the name of what they are of.
What was configured is taken when an object is tracked, before a checkpoint overrides it.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tensorkeep.training.functions import digest
from tensorkeep.training.rates import kinds
from tensorkeep.training.rates.changes import rates
from tensorkeep.training.tracking import Tracked

Json = Any
Facts = dict[str, Json]
# As they are called in `resume(accept=...)`.
KINDS = (
    *("world_size", "batch_size", "workers", "optimizer", "options", "order"),
    *("moments", "parameters", "lambdas", "schedule", "lr", "flags", "versions"),
)
# What these configure, the checkpoint puts in their place.
OVERRIDDEN = ("lr", "options", "schedule")
# Of a scheduler's state: what moves, and what is said elsewhere as its learning rate.
_MOVES = {
    *("last_epoch", "_step_count", "_last_lr", "best", "num_bad_epochs", "cooldown_counter"),
    *("T_cur", "T_i", "base_lrs", "max_lrs", "_get_lr_called_within_step", "_is_initial"),
}


def environment() -> dict[str, Facts | Json]:
    """World size, flags and versions, as they are now."""
    numpy = sys.modules.get("numpy")
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "world_size": {"the run": torch.distributed.get_world_size() if distributed else 1},
        "flags": _flags(),
        "versions": {
            "torch": str(torch.__version__),
            "numpy": None if numpy is None else numpy.__version__,
            "python": platform.python_version(),
        },
    }


def _flags() -> Facts:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn.deterministic": cudnn.deterministic,
        "cudnn.benchmark": cudnn.benchmark,
        "TF32 in products": _tf32(matmul),
        "TF32 in convolutions": _tf32(getattr(cudnn, "conv", cudnn)),
    }


def _tf32(backend: Any) -> Json:  # noqa: ANN401
    # torch 2.9 on has a precision by name, and asking it the old way may warn.
    precision = getattr(backend, "fp32_precision", None)
    return backend.allow_tf32 if precision is None else precision


def configured(target: object) -> dict[str, Json]:
    """What `target` is built with; to be asked when it is tracked."""
    if isinstance(target, Optimizer):
        return {
            "lr": rates([group.get("initial_lr", group["lr"]) for group in target.param_groups]),
            "options": {k: _plain(v) for k, v in target.defaults.items() if k != "lr"},
        }
    if isinstance(target, LRScheduler):
        # torch keeps no function of a LambdaLR in its state, and says nothing if it is another.
        functions = [digest(each) for node in kinds.nodes(target) for each in _functions(node)]
        return {
            **({"lambdas": functions} if functions else {}),
            **({"lr": bases} if (bases := base_rates(target)) else {}),
            "schedule": dict(_schedule(target)),
        }
    return {}


def _functions(node: Any) -> list[object]:  # noqa: ANN401
    found = list(getattr(node, "lr_lambdas", None) or ())
    scale = getattr(node, "_scale_fn_custom", None)
    return found if scale is None else [*found, scale]


def base_rates(scheduler: Any) -> list[float]:  # noqa: ANN401
    """The rates that its schedule begins from, as `set_lr` calls them; empty if it keeps none."""
    leaf = kinds.first(scheduler)
    if type(leaf) in kinds.IN_GROUPS or hasattr(leaf, "base_lrs"):
        return kinds.bases(scheduler, scheduler.optimizer)
    return []


def _schedule(scheduler: Any) -> Iterator[tuple[str, Json]]:  # noqa: ANN401
    for at, node in enumerate(kinds.nodes(scheduler)):
        before = f"part {at}, " if at else ""
        for key, value in vars(node).items():
            plain = _plain(value)
            if key not in _MOVES and plain is not None and not callable(value):
                yield f"{before}{key}", plain


def _plain(value: object) -> Json:
    """Numbers, text and lists of them; None for everything else."""
    if isinstance(value, torch.Tensor):
        return _plain(value.tolist()) if value.numel() <= 64 else None
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return _plain(sorted(value.items()))
    if isinstance(value, tuple | list):
        made = [_plain(each) for each in value]
        return None if None in made else made
    return None


def of_optimizer(optimizer: Optimizer, tree: Mapping[str, Any]) -> dict[str, Json]:
    """Of an optimizer as it is now; `tree`: what it captures."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return {
        "optimizer": _class_of(optimizer),
        "order": [_order(group["params"]) for group in tree["groups"]],
        "moments": moments(tree),
        "parameters": sorted({_dtype(param) for param in params}),
    }


def _class_of(optimizer: Optimizer) -> str:
    kind = type(optimizer)
    own = kind.__module__.startswith("torch.optim.")
    return f"{'torch.optim' if own else kind.__module__}.{kind.__qualname__}"


def _order(names: list[str]) -> str:
    text = "\n".join(names).encode("utf-8", "surrogatepass")
    return f"{len(names)} parameters, sha256:{hashlib.sha256(text).hexdigest()}"


def moments(tree: Mapping[str, Any]) -> dict[str, list[str]]:
    """The dtypes of each part of an optimizer's state (`exp_avg`), counts of steps left out."""
    found: dict[str, set[str]] = {}
    for state in tree["state"].values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and key != "step":
                found.setdefault(key, set()).add(_dtype(value))
    return {key: sorted(dtypes) for key, dtypes in found.items()}


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def of_loader(loader: Any) -> dict[str, Json]:  # noqa: ANN401
    """Batch size and number of workers, where it has them."""
    size = getattr(loader, "batch_size", None)
    if size is None:
        size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    workers = getattr(loader, "num_workers", None)
    return {"batch_size": _plain(size), "workers": _plain(workers)}


def target_of(tracked: Tracked) -> Any:  # noqa: ANN401
    """The object of the user's."""
    return getattr(tracked, "optimizer", None) or getattr(tracked, "target", None)
