"""The oracle as a process that all tests of this folder share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "corpus" / "hostile"), str(HERE.parent / "benign")]


@pytest.fixture(scope="session")
def oracle():
    from asking import Oracle

    with Oracle() as asked:
        yield asked
