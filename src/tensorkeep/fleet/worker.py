"""A process of the pool: a job on the first line of standard input, then a path on each; a report
on a line of standard output for each. It ends when the input ends.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

from tensorkeep.errors import TensorkeepError
from tensorkeep.fleet._wire import job_of, line, pack_report
from tensorkeep.scanning.reports import failure


def main() -> None:
    """Work until there is no more."""
    gc.set_threshold(200_000, 50, 50)
    # Whatever writes to standard output by mistake must not end up between two reports.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    job = job_of(json.loads(source.readline()))
    out.write(line("ready"))
    out.flush()
    for text in source:
        path = Path(json.loads(text))
        try:
            report = job(path)
        except TensorkeepError as error:
            report = failure(os.fspath(path), error)
        out.write(line(pack_report(report)))
        out.flush()
