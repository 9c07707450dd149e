"""What every test shares: how many examples hypothesis tries, and where the sample files lie."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# `check` tries the same examples every time: a build must not go red for another reason than
# the change. `long` (make test-long) is where new examples are looked for. No database: a
# failure is reproduced from the blob that is printed.
_COMMON = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("check", max_examples=60, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=3000, **_COMMON)
settings.load_profile("check")

# A shell that runs the tests in its background has them, and all that they start, ignore SIGINT;
# nohup has them ignore SIGHUP.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def digits() -> Path:
    """A small training checkpoint: model, optimizer, epoch, val_accuracy."""
    return ROOT / "examples" / "digits.pth"


@pytest.fixture(scope="session")
def hostile_digits() -> Path:
    """The same checkpoint with one call hidden in its pickle. Never to be loaded."""
    return ROOT / "examples" / "digits-hostile.pth"
