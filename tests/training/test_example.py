"""The example that is killed and goes on, as a reader would start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_digits_are_trained_killed_and_resumed(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, root / "examples" / "resume_digits.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout
    assert "step 120 and step 120: equal" in done.stdout
