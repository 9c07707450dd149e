"""Honest files by their real writers: `CASES[name](folder)` writes one and returns its path.

Every case is `safe`, and a scan says nothing about it; `ODD` are honest files that cannot be
called safe, each with the rules that say why. Writers are seeded: two runs write the same
structure. The cases lie in the modules `cases_*` beside this one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cases_containers  # noqa: E402
import cases_files  # noqa: E402
import cases_frameworks  # noqa: E402
import cases_models  # noqa: E402
import cases_plain  # noqa: E402
import cases_tensors  # noqa: E402
import cases_training  # noqa: E402
import cases_values  # noqa: E402

Case = Callable[[Path], Path]

_MODULES = (
    cases_tensors, cases_containers, cases_plain, cases_models, cases_training, cases_frameworks,
    cases_files, cases_values,
)  # fmt: skip

CASES: dict[str, Case] = {}
ODD: dict[str, tuple[Case, set[str]]] = {}
for _module in _MODULES:
    assert not CASES.keys() & _module.CASES.keys()
    CASES.update(_module.CASES)
    ODD.update(getattr(_module, "ODD", {}))
