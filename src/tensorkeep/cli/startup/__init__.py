"""The folder that `tensorkeep guard` puts first on Python's path: it holds `sitecustomize` alone.

Python imports a module of that name when it starts, so every Python process below the command is
guarded before the program's first line, workers and subprocesses too.
"""
