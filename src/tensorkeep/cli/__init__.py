"""The command: the only room that prints, reads the environment and chooses exit codes.

Results go to stdout, talk to stderr. Each verb has a file of its own, imported when it is
called; `output` draws, `progress` shows long work.
"""

from tensorkeep.cli.main import main

__all__ = ["main"]
