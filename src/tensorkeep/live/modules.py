"""What a module wants: its parameters and buffers by name, and modules built to be asked that.

Only code that the caller names is run: the factory, and what importing its module runs. It is
called on the meta device, so that no weight is made; what cannot be built there (it looks at
values) is built as it would be anywhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorkeep.errors import BadArgument
from tensorkeep.live.loading import require_torch
from tensorkeep.matching.specs import Spec, Wanted

if TYPE_CHECKING:
    import torch

# What torch says where a device is not there, on builds with CUDA, without, and for others.
_DEVICE = re.compile(r"cuda|gpu|nvidia|hip\b|xpu|\bmps\b", re.I)
Arguments = Mapping[str, Any] | Sequence[Any] | None


def inventory(module: torch.nn.Module, subject: str = "the model") -> Wanted:
    """The tensors of `module.state_dict()`, ties told by identity; no value is looked at.

    Raises `BadArgument` for a module with lazy parameters, which have no shape yet, and for one
    that does not give its state.
    """
    import torch
    from torch.nn.parameter import is_lazy

    tensors: dict[str, Spec] = {}
    firsts: dict[int, str] = {}
    notes = []
    for name, value in _state(module, subject).items():
        if not isinstance(value, torch.Tensor):
            notes.append(f"{name!r} of the model is no tensor: it was left out")
            continue
        if is_lazy(value):
            raise BadArgument(
                f"parameter {name!r} of {subject}",
                expected="a shape",
                got="a lazy parameter, which has none before the first forward",
                remedy="Let the factory run the model once.",
            )
        first = firsts.setdefault(id(value), name)
        dtype = str(value.dtype).removeprefix("torch.")
        tensors[name] = Spec(dtype, tuple(value.shape), None if first == name else first)
    return Wanted(subject, tensors, frozenset(rebuilt(module)), notes)


def _state(module: torch.nn.Module, subject: str) -> Mapping[str, object]:
    """Its state dict; hooks and methods of others may fail in it."""
    try:
        return module.state_dict(keep_vars=True)
    except Exception as error:
        raise BadArgument(
            subject,
            expected="a module that gives its state_dict",
            got=_told(error),
            remedy="Call state_dict() yourself to see where it fails.",
        ) from error


def rebuilt(module: torch.nn.Module) -> Iterator[str]:
    """Names of non-persistent buffers: the module makes them, and no state dict has them."""
    for prefix, child in module.named_modules(remove_duplicate=False):
        for name in child._non_persistent_buffers_set:
            yield f"{prefix}.{name}" if prefix else name


def build(factory: str, arguments: Arguments = None) -> tuple[torch.nn.Module, list[str]]:
    """The module that `package.module:factory` makes, on the meta device, and notes for the user.

    `arguments`: a mapping by name, or a sequence in order. The current folder can be imported
    from. Raises `BadArgument` where the factory cannot be imported, raises, or gives no module,
    and `MissingExtra` where there is no torch.
    """
    require_torch()
    import torch

    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        return _build(factory, arguments)


def _build(factory: str, arguments: Arguments) -> tuple[torch.nn.Module, list[str]]:
    import torch

    made = _imported(factory)
    if isinstance(made, torch.nn.Module):
        return made, []
    if not callable(made):
        raise BadArgument(
            factory, expected="a function or class that makes a module", got=_kind(made)
        )
    positional, named = _split(arguments)
    notes: list[str] = []
    module: object
    try:
        with torch.device("meta"):
            module = made(*positional, **named)
    except (Exception, SystemExit) as first:
        module = _built_really(factory, made, positional, named, first)
        notes = [f"{factory} cannot be built on the meta device ({_told(first)}): it was built"]
    if not isinstance(module, torch.nn.Module):
        raise BadArgument(
            factory,
            expected="a torch.nn.Module",
            got=_kind(module),
            remedy="Let it return the model, or name the function that does.",
        )
    return module, notes


def _built_really(
    factory: str,
    made: Callable[..., object],
    positional: Sequence[Any],
    named: Mapping[str, Any],
    first: BaseException,
) -> object:
    """As it would be anywhere."""
    try:
        return made(*positional, **named)
    except (Exception, SystemExit) as error:
        # A signature that does not fit fails alike in both places.
        remedy = "Call it yourself to see where it fails."
        if isinstance(error, TypeError) and "argument" in str(error):
            remedy = "Give its arguments with --model-args '{\"name\": value}' (model_args=...)."
        elif _DEVICE.search(str(error)):
            remedy = "Let it build on the default device; no device is needed to match names."
        raise BadArgument(
            factory, expected="a factory that makes a module", got=_told(error), remedy=remedy
        ) from (error if str(error) == str(first) else first)


def _split(arguments: Arguments) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if arguments is None:
        return (), {}
    if isinstance(arguments, Mapping):
        return (), arguments
    if isinstance(arguments, list | tuple):
        return arguments, {}
    raise BadArgument("model_args", expected="an object or a list", got=_kind(arguments))


def _imported(factory: str) -> Any:  # noqa: ANN401
    """What `package.module:name` names; `name` may have dots in it."""
    module, colon, name = factory.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise BadArgument(
            factory,
            expected="an existing path, a URL, or package.module:factory",
            got="neither",
            remedy="Check the path, or write the factory as in mypackage.models:build.",
        )
    try:
        with _current_folder():
            found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise BadArgument(
            factory,
            expected="a module that can be imported, and a name in it",
            got=_told(error),
            remedy="Run it in the folder that holds the package.",
        ) from error
    return found


@contextmanager
def _current_folder() -> Iterator[None]:
    """The current folder can be imported from, as with `python -m`, for as long as it takes."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _told(error: BaseException) -> str:
    # Its first sentence: the rest is advice on drivers, or a stack.
    text = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
