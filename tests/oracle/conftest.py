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


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """The file, or the folder, of every honest case."""
    from hunting import write_honest

    return write_honest(tmp_path_factory.mktemp("honest"))
