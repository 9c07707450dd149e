"""Judges what pickles and formats report about a file; parses nothing itself.

`scan` is the verb, `judge` the verdict on an opened checkpoint. The allowlist says what may be
called or mentioned, the rules what every event of a program means, and a verdict is the worst
of the findings. Nothing here runs what it judges, and the verdict does not depend on what is
installed.
"""

from tensorkeep.scanning.examining import judge
from tensorkeep.scanning.reports import FileReport, ScanReport
from tensorkeep.scanning.targets import scan

__all__ = ["FileReport", "ScanReport", "judge", "scan"]
