"""This machine's files: read in place; written so that they appear whole or not at all.

`reading` and `writing` serve one file, `folders` a folder full of them; `placing` knows how a
finished file gets its name and `kernel` the two system calls that Python lacks.
"""

from tensorkeep.stores.local.brief import BriefBlob
from tensorkeep.stores.local.folders import LocalFolderSink
from tensorkeep.stores.local.reading import LocalBlob, LocalFolder, same_file
from tensorkeep.stores.local.writing import LocalSink

__all__ = ["BriefBlob", "LocalBlob", "LocalFolder", "LocalFolderSink", "LocalSink", "same_file"]
