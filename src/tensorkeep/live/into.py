"""`load_into`: a checkpoint into a module, an optimizer or a scheduler; all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.errors import BadArgument
from tensorkeep.facts import Limits
from tensorkeep.live.loading import no_collection, require_torch, warn_unless_safe
from tensorkeep.progress import SILENT, Reporter

if TYPE_CHECKING:
    import os

    import torch

    from tensorkeep.edits.edit import Edit
    from tensorkeep.edits.recipe import Recipe
    from tensorkeep.live.devices import Device
    from tensorkeep.live.report import LoadReport

_SHAPES = (None, "refuse", "skip")


def load_into(
    target: torch.nn.Module | torch.optim.Optimizer | Any,  # noqa: ANN401
    source: Source | Checkpoint,
    *,
    strict: bool = True,
    fix: bool = True,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    edits: Sequence[Edit] = (),
    section: str | None = None,
    min_coverage: float | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: Mapping[str, Device] | None = None,
    device: Device | None = None,
    assign: bool = False,
    shapes: str | None = None,
    mmap: bool = False,
    lazy: bool = False,
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> LoadReport:
    """Load `source` into `target` and say what became of it. A load that fails changes nothing.

    `target`: a module; or an optimizer, or anything else with `state_dict` and `load_state_dict`
    (a scheduler, a GradScaler), which takes the section that is its own. `source`: whatever `open`
    takes, or a checkpoint that is open. `section`: a top-level part, "all", or None for the
    weights.

    `recipe` (a path or a `Recipe`) and then `edits` are applied first. `fix`: names that still
    differ are searched for the smallest rules that make them fit; none rests on shape alone.
    `strict`: every tensor of the module must be filled and every one of the file used. Otherwise
    what has no counterpart stays as it was, and so does what has another shape; `shapes` "refuse"
    or "skip" says the latter by itself. Less than `min_coverage` of the module's bytes
    overwritten (1.0 if strict, else 0.5) is an error in either case.

    `dtype`: "cast" to the module's own (as None does), with what overflowed or became zero
    counted; "exact" refuses any difference; "keep" gives the module the file's; a dtype gives it
    to all floating point tensors. Integers are never cast to floats: what they stand for is not
    known. int8 codes with a scale beside them, as `quantize` writes them, become floats where the
    module wants floats and has no place for the scale (not if "exact").

    Values are copied into the memory that is there, and parameters stay the objects that an
    optimizer knows; those on the meta device (`empty_weights`) become real, on `device` or by
    `device_map` (prefix of names to device), on the CPU by default. `assign`: all of them are
    replaced, as by `load_state_dict(assign=True)`. `mmap`: what is not copied lies in a mapping of
    the file. `lazy`: what is on meta is read when its module runs and let go of afterwards, for
    models that are larger than memory.

    Raises `DoesNotFit` (its `report` says everything), `BadArgument`, `ReadError`, `StoreError`,
    `SelectionError`, and `MissingExtra` without torch. A file that is not safe is loaded with a
    `NotSafeWarning`, and nothing of it is run.
    """
    require_torch()
    import torch

    from tensorkeep.live import empty, into_module, into_others

    began = perf_counter()
    _check(target, shapes, min_coverage, lazy=lazy, assign=assign)
    if not isinstance(target, torch.nn.Module):
        _check_plain(
            target,
            {"recipe": recipe, "edits": edits, "dtype": dtype, "device": device, "lazy": lazy}
            | {"device_map": device_map, "assign": assign, "shapes": shapes, "mmap": mmap},
        )
    with no_collection(), empty.suspended(), ExitStack() as stack:
        if isinstance(source, Checkpoint):
            ckpt = source
        else:
            ckpt = stack.enter_context(open_checkpoint(source, limits=limits))
        warn_unless_safe(ckpt)
        if not isinstance(target, torch.nn.Module):
            return into_others.load(target, ckpt, section, limits or Limits(), began)
        floor = min_coverage if min_coverage is not None else 1.0 if strict else 0.5
        how = into_module.How(
            strict=strict,
            fix=fix,
            skip_shapes=shapes == "skip" or (shapes is None and not strict),
            floor=floor,
            assign=assign,
            mapped=mmap,
            lazy=lazy,
            keep=None if ckpt is source else stack.pop_all,
            limits=limits or Limits(),
            reporter=reporter,
        )
        how.say(dtype, device, device_map)
        report = into_module.load(target, ckpt, recipe, edits, section, how)
        report.seconds = perf_counter() - began
        return report


def empty_weights(*, include_buffers: bool = False) -> AbstractContextManager[None]:
    """Modules that are built inside have their parameters on the meta device: no memory, no time.

        with tk.empty_weights():
            model = build()
        tk.load_into(model, "model.safetensors")

    Nothing is initialised (`reset_parameters` and `torch.nn.init` do nothing to them). Buffers are
    real, unless `include_buffers`: what a module computes when it is built (positions,
    frequencies, masks) is often in no file. Parameters that one module shares with another stay
    shared, lazy ones stay lazy. Holds for this thread only; may be nested; whatever is raised
    inside, the outside is as before. `load_into` inside gives real weights. Raises `MissingExtra`
    without torch.
    """
    require_torch()
    from tensorkeep.live.empty import EmptyWeights

    return EmptyWeights(include_buffers=include_buffers)


def _check(
    target: object, shapes: object, min_coverage: object, *, lazy: bool, assign: bool
) -> None:
    for method in ("state_dict", "load_state_dict"):
        if isinstance(target, type) or not callable(getattr(target, method, None)):
            raise BadArgument(
                "load_into",
                expected="a module, an optimizer, or another object with load_state_dict",
                got=f"{'the class ' if isinstance(target, type) else 'a '}"
                f"{getattr(target, '__name__', type(target).__name__)}",
            )
    if shapes not in _SHAPES:
        raise BadArgument("shapes", expected="'refuse' or 'skip'", got=repr(shapes))
    if min_coverage is not None and not (
        isinstance(min_coverage, int | float) and 0 <= min_coverage <= 1
    ):
        raise BadArgument(
            "min_coverage", expected="a share between 0 and 1", got=repr(min_coverage)
        )
    if lazy and assign:
        raise BadArgument("lazy, assign", expected="one of them", got="both")


def _check_plain(target: object, options: Mapping[str, object]) -> None:
    """What is no module takes its state as it is. Raises `BadArgument`."""
    given = [name for name, value in options.items() if value]
    if given:
        raise BadArgument(
            ", ".join(given),
            expected="a module, whose tensors it is for",
            got=f"a {type(target).__name__}",
            remedy="Leave it out: the state of an optimizer or a scheduler is loaded as it is.",
        )
