"""Every figure, then the README: `make bench`, or `python bench/run.py [scanners ...]`.

Takes under an hour on an idle machine of two cores (diffing, quantizing, loading, load_into and
matching are meant to be twenty minutes of it), 30 GB of disk in the folder for temporary files
(--files names another), and the network once, for the other scanners and loaders.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import HERE, arguments
from report import APART, FIGURES, LATER

EVERY = (*FIGURES, *LATER, *APART)


def main() -> None:
    parser = arguments()
    parser.add_argument(
        "figures", nargs="*", metavar="FIGURE", help=", ".join((*FIGURES, *LATER, *APART))
    )
    asked = parser.parse_args()
    folder = asked.files or Path(tempfile.mkdtemp(prefix="tensorkeep-bench-"))
    options = ["--scale", asked.scale, "--runs", asked.runs, "--files", folder]
    options += ["--peers", asked.peers or folder / "peers"]
    options += ["--out", asked.out] if asked.out else []
    try:
        for name in asked.figures or EVERY:
            print(f"== {name}", flush=True)
            command = [sys.executable, HERE / f"{name}.py", *options]
            subprocess.run([str(word) for word in command], check=True)
    finally:
        if asked.files is None:
            shutil.rmtree(folder)
    if asked.scale == 1 and asked.out is None:
        subprocess.run([sys.executable, str(HERE / "report.py")], check=True)


if __name__ == "__main__":
    main()
