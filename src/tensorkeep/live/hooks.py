"""Where a guard takes hold of torch: the functions that load, now or when they are imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

from tensorkeep.errors import Unsupported

_Undo = Callable[[], None]


# Their code takes the place of torch's: the names and the order of their arguments are torch's.
def _load(  # type: ignore[no-untyped-def]  # noqa: ANN202
    f,  # noqa: ANN001
    map_location=None,  # noqa: ANN001
    pickle_module=None,  # noqa: ANN001
    *,
    weights_only=None,  # noqa: ANN001
    mmap=None,  # noqa: ANN001
    **pickle_load_args,  # noqa: ANN003
):
    from tensorkeep.live import hooks  # noqa: PLW0406  # it runs among the names of torch

    given = {"weights_only": weights_only, "mmap": mmap, **pickle_load_args}
    return hooks.instead().load(f, map_location, pickle_module, **given)


def _script(  # type: ignore[no-untyped-def]  # noqa: ANN202
    f,  # noqa: ANN001
    map_location=None,  # noqa: ANN001
    _extra_files=None,  # noqa: ANN001
    _restore_shapes=False,  # noqa: ANN001
):
    from tensorkeep.live import hooks  # noqa: PLW0406  # it runs among the names of torch

    return hooks.instead().script(f, map_location, _extra_files, _restore_shapes)


def _exchanged(module: ModuleType, name: str, code: CodeType) -> _Undo:
    """Give the function `name` of `module` another code, under every name that it has."""
    function: FunctionType = getattr(module, name)
    old = function.__code__
    names = old.co_varnames[: old.co_argcount + old.co_kwonlyargcount]
    wanted = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if names != wanted or old.co_freevars:
        raise Unsupported(
            f"{module.__name__}.{name}",
            expected=f"the arguments {', '.join(wanted)}",
            got=str(inspect.signature(function)),
            remedy="Use the guard with a version of torch that it knows (2.4 to 2.13).",
        )
    copy = FunctionType(old, function.__globals__, name, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    ORIGINALS[f"{module.__name__}.{name}"] = copy
    function.__code__ = code

    def undo() -> None:
        function.__code__ = old

    return undo


def _serialization(module: ModuleType) -> _Undo:
    return _exchanged(module, "load", _load.__code__)


def _jit(module: ModuleType) -> _Undo:
    return _exchanged(module, "load", _script.__code__)


def _packages(module: ModuleType) -> _Undo:
    """`PackageImporter(file)`: what it is given is looked at first, and is what it gets."""
    kind: Any = module.PackageImporter
    old = kind.__init__

    def init(self: object, file_or_buffer: object, *more: object, **given: object) -> None:
        old(self, instead().package(file_or_buffer), *more, **given)

    kind.__init__ = init

    def undo() -> None:
        kind.__init__ = old

    return undo


def _distributed(module: ModuleType) -> _Undo:
    """`.metadata` of torch.distributed.checkpoint is a pickle that is read by no torch.load."""
    old: Any = module.pickle

    def load(file: object) -> object:
        return instead().metadata(file)

    module.pickle = SimpleNamespace(**{**vars(old), "load": load})  # type: ignore[attr-defined]

    def undo() -> None:
        module.pickle = old  # type: ignore[attr-defined]

    return undo


ORIGINALS: dict[str, Callable[..., Any]] = {}
_HOOKS: dict[str, Callable[[ModuleType], _Undo]] = {
    "torch.serialization": _serialization,
    "torch.jit._serialization": _jit,
    "torch.package.package_importer": _packages,
    "torch.distributed.checkpoint.filesystem": _distributed,
}
_done: dict[str, _Undo] = {}
_answers: list[Callable[[], Any]] = []


def instead() -> Any:  # noqa: ANN401
    """The functions that are called instead of torch's: `load`, `script`, `package`, `metadata`."""
    return _answers[-1]()


class _Finder:
    """Hooks a module in when it is imported, before anybody can take a name out of it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the others find, its loader followed by the hook."""
        if name not in _HOOKS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                _follow(spec, name)
                return spec
        return None


def _follow(spec: ModuleSpec, name: str) -> None:
    loader: Any = spec.loader
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        if any(isinstance(finder, _Finder) for finder in sys.meta_path):
            _hook(name, module)

    loader.exec_module = exec_module


def _hook(name: str, module: ModuleType) -> None:
    if name not in _done:
        _done[name] = _HOOKS[name](module)


def install(answers: Callable[[], Any]) -> None:
    """Take hold of what is imported already, and of the rest when it is. Twice is once."""
    _answers[:] = [answers]
    for name in _HOOKS:
        if name in sys.modules:
            # Another thread may be importing it just now: this waits until it is whole.
            _hook(name, import_module(name))
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def remove() -> None:
    """Give everything back."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    while _done:
        _, undo = _done.popitem()
        undo()
