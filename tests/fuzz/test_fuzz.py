"""Every target for a few seconds with a fixed seed; `make fuzz` gives each an hour."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TARGETS = sorted(path.stem for path in HERE.glob("fuzz_*.py"))
RUNS = 600
SECONDS = 6

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it has no wheel for this Python or this system",
)


def harness(name, folder, *flags):
    command = [sys.executable, str(HERE / "harness.py"), name, str(folder), "-seed=1", *flags]
    env = {key: value for key, value in os.environ.items() if key != "KEEP_GOING"}
    env["PYTHONPATH"] = os.pathsep.join([str(folder), env.get("PYTHONPATH", "")])
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=120, env=env
    )


@pytest.mark.parametrize("name", TARGETS)
def test_no_promise_is_broken(name, tmp_path):
    done = harness(name, tmp_path, f"-runs={RUNS}", f"-max_total_time={SECONDS}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stat::number_of_executed_units" in done.stderr


PLANTED = """
import time
def seeds():
    return [b"PK seed"]
def one(data):
    from tensorkeep.stores.memory import MemoryBlob
    {body}
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("MemoryBlob(data).read(0, 5)", "Damaged"),
        ("until = time.thread_time() + 3.5\n    while time.thread_time() < until: pass", "TooSlow"),
        ("bytearray(8 << 30)", "MemoryError"),
    ],
)
def test_a_broken_promise_is_found(body, said, tmp_path):
    # Were the harness blind, the tests above could not fail.
    (tmp_path / "planted.py").write_text(PLANTED.format(body=body))
    done = harness("planted", tmp_path, "-runs=5000", "-max_total_time=20")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
