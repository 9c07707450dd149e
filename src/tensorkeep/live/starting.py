"""Values for what stands on the meta device and is in no file: its module's own, or none.

Only code of the caller's module is called: `reset_parameters` of a layer, `_init_weights` of the
model around it (transformers), or the class of a part that is made from its `config`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from tensorkeep.errors import DoesNotFit
from tensorkeep.live.layout import own_names
from tensorkeep.live.report import listed
from tensorkeep.live.undo import Undo

_Init = Callable[[nn.Module], object]


def initialise(
    model: nn.Module, names: Sequence[str], device: torch.device, undo: Undo, subject: str
) -> None:
    """Give `names`, all on meta, the values that their layers begin with.

    The other tensors of such a layer get some too: they are to be filled afterwards. Raises
    `DoesNotFit` if a layer does not say how.
    """
    wanted = set(names)
    for prefix, module, init in _walk(model, None, ""):
        own = [key for key in own_names(module) if prefix + key in wanted]
        if not own:
            continue
        undo.keep(module)
        begin = getattr(module, "reset_parameters", None)
        for key in list(own_names(module)):
            _realise(module, key, device, undo)
        made = _call(begin) if callable(begin) else _by_model(module, own, init)
        if not made:
            raise _without(sorted(wanted), subject)
        wanted -= {prefix + key for key in own}
    if wanted:
        raise _without(sorted(wanted), subject)


def _without(names: Sequence[str], subject: str) -> DoesNotFit:
    return DoesNotFit(
        subject,
        expected="a value for each parameter on the meta device",
        got=f"MISSING, and no reset_parameters to begin with: {listed(names)}",
        remedy="Build the model with real weights, or load a file that has them.",
    )


def rebuild(model: nn.Module, device: torch.device, undo: Undo, subject: str) -> list[str]:
    """Make non-persistent buffers on meta again; their names. Raises `DoesNotFit`."""
    done: list[str] = []
    left: list[str] = []
    for prefix, module, init in _walk(model, None, ""):
        hidden = module._non_persistent_buffers_set
        own = [key for key in hidden if getattr(module._buffers.get(key), "is_meta", False)]
        if not own:
            continue
        undo.keep(module)
        made = _by_config(module, own, device, undo)
        # What is real below it keeps its values: only parts that are to be filled are touched.
        if not made and all(parameter.is_meta for parameter in module.parameters()):
            for key in own:
                _realise(module, key, device, undo)
            made = _by_model(module, own, init)
        (done if made else left).extend(prefix + key for key in own)
    if left:
        raise DoesNotFit(
            subject,
            expected="buffers with values",
            got=f"non-persistent ones on the meta device, which are in no file: {listed(left)}",
            remedy="Build the model inside tk.empty_weights(), which keeps buffers real.",
        )
    return done


def _walk(
    module: nn.Module, init: _Init | None, prefix: str
) -> Iterator[tuple[str, nn.Module, _Init | None]]:
    """Modules with their prefix, and the nearest `_init_weights` around them."""
    near = getattr(module, "_init_weights", None)
    init = near if callable(near) else init
    yield prefix, module, init
    for key, child in module._modules.items():
        if child is not None:
            yield from _walk(child, init, f"{prefix}{key}.")


def _realise(module: nn.Module, key: str, device: torch.device, undo: Undo) -> None:
    """Memory in the place of a meta tensor, filled with what shows whether it was written to."""
    old = getattr(module, key)
    if not old.is_meta:
        return
    new = torch.empty_like(old, device=device)
    new.detach().fill_(_mark(new.dtype))
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new.detach(), requires_grad=old.requires_grad)
    undo.put(module, key, new)


def _mark(dtype: torch.dtype) -> float | int | bool:
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).min


def _written(tensor: torch.Tensor) -> bool:
    if tensor.dtype == torch.bool:
        return False  # nothing could have shown it
    is_float = tensor.is_floating_point() or tensor.is_complex()
    left = tensor.isnan() if is_float else tensor == _mark(tensor.dtype)
    return not bool(left.any())


def _call(begin: Callable[[], object]) -> bool:
    with torch.no_grad():
        begin()
    return True


def _by_model(module: nn.Module, own: Sequence[str], init: _Init | None) -> bool:
    """By the model's own function for its parts; believed only where it wrote something."""
    if init is None:
        return False
    with torch.no_grad():
        init(module)
    return all(_written(getattr(module, key)) for key in own)


def _by_config(module: nn.Module, own: Sequence[str], device: torch.device, undo: Undo) -> bool:
    """By building the part once more: one that has no parameters and was made of its config."""
    config = getattr(module, "config", None)
    if config is None or any(True for _ in module.parameters()):
        return False
    try:
        with torch.device(device):
            twin = type(module)(config)
        buffers = [twin._buffers[key] for key in own]
    except (TypeError, KeyError, AttributeError, ValueError, RuntimeError):
        return False  # it wants other arguments
    olds = [module._buffers[key] for key in own]
    if any(
        new is None or old is None or new.is_meta or new.shape != old.shape
        for new, old in zip(buffers, olds, strict=True)
    ):
        return False
    for key, new in zip(own, buffers, strict=True):
        undo.put(module, key, new)  # type: ignore[arg-type]
        twin_of = f"original_{key}"
        if getattr(getattr(module, twin_of, None), "is_meta", False):
            setattr(module, twin_of, getattr(twin, twin_of, new))
    return True
