"""What an attacker gains from each kind of harm of `_danger_names`. Data only."""

from __future__ import annotations

from tensorkeep.scanning._danger_names import RESOLVES

GAINS: dict[str, str] = {
    "would start a process or a shell command": (
        "Any program runs with your rights: it can read your keys, change your files and stay"
    ),
    "would run Python code": (
        "Whatever Python can do, with your rights and inside your process, is done"
    ),
    "would read, write or delete files": (
        "Your files can be read, destroyed or replaced; one written to the right place runs later"
    ),
    "would reach the network": (
        "Your data and keys can be sent away, and more code can be fetched; loading is reported"
    ),
    "would load or run native code": (
        "Machine code runs inside your process, where no check of Python's can see it"
    ),
    "would import a module, which runs its code": (
        "Any module that can be found is run, and all that it holds lies open to the file"
    ),
    RESOLVES: (
        "Every function of every module is reached under a harmless name, code execution included"
    ),
    "would call another function that the file names": (
        "A forbidden function is called by one that looks harmless: code execution, once removed"
    ),
    "would read another pickle, with everything that it may run": (
        "A second program runs that the first one hides from whoever looks at it"
    ),
    "would make a function out of bytes of the file": (
        "The file brings compiled code along, and whoever calls the function runs it"
    ),
    "would change or end the running process": (
        "Code that runs later behaves as the file wants, or the process ends"
    ),
    "would reach the operating system": (
        "Your environment, users and machine lie open, and the way to starting programs is short"
    ),
    "would install packages, which runs their code": (
        "Foreign code is run now, and stays installed for every program of this environment"
    ),
}
