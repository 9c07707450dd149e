"""fickling's verdict on one file, as its documentation says for pickles and for zip archives.

Of a folder every file is asked about. Exit codes as those of its own command: 0 likely safe,
1 not, 2 could not be parsed.
"""

import sys
import zipfile
from pathlib import Path


def main() -> int:
    path = Path(sys.argv[1])
    parts = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
    codes = [judge(str(part)) for part in parts]
    return 1 if 1 in codes else max(codes)


def judge(path: str) -> int:
    if not zipfile.is_zipfile(path):
        from fickling.cli import main as command

        return command(["fickling", "--check-safety", "--json-output", "/dev/null", path])
    from fickling import scan_zip_archive

    found = scan_zip_archive(path)
    if not found:
        print("nothing in it")
    return int(any(part.severity.name != "LIKELY_SAFE" for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
