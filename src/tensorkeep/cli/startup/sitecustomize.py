"""Starts the guard in a Python process below `tensorkeep guard`. Python itself imports this."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

_VARIABLE = "TENSORKEEP_GUARD"
_COULD_NOT_FINISH = 2


def _start(setting: str) -> None:
    try:
        _find_tensorkeep()
        from tensorkeep.live.guarding import guard

        guarded = guard(**json.loads(setting))
        guarded.start()
        guarded.log.write({"schema": 1, "outcome": "started", "process": os.getpid()})
    except BaseException as error:  # Python would say so, and go on without a guard
        text = f"tensorkeep: the guard could not start, and the program was not run: {error!r}\n"
        os.write(2, text.encode("utf-8", "backslashreplace"))
        os._exit(_COULD_NOT_FINISH)


def _find_tensorkeep() -> None:
    """The very tensorkeep that the command belongs to, installed for this Python or not."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    spec = importlib.util.spec_from_file_location(
        "tensorkeep",
        os.path.join(folder, "__init__.py"),  # noqa: PTH118
        submodule_search_locations=[folder],
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tensorkeep"] = module
    spec.loader.exec_module(module)


def _give_way() -> None:
    """Take this folder off the path, and import the sitecustomize that it hides, if any."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [place for place in sys.path if os.path.abspath(place or ".") != here]  # noqa: PTH100
    mine = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = mine


if __name__ == "sitecustomize":
    _started = os.environ.get(_VARIABLE)
    if _started:
        _start(_started)
    _give_way()
