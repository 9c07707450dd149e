"""What the process does while a file is loaded: audit events, and those that may happen.

An audit hook cannot be taken out again, so it lives in a process of its own and is armed only
while a file is loaded or used. An event that reaches outside is written down and refused: the
payload of a hostile file is seen, and does not happen.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

# The folders that modules come from when the process starts, the temporary one not among them.
LIBRARIES = tuple(
    {path for path in map(os.path.realpath, sys.path) if Path(path).is_dir()}
    | {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib")}
    | {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)

# Events that change nothing outside the interpreter, one by one.
INNOCENT = {
    "import": "modules that allowlisted names live in; where they come from is checked by `open`",
    "pickle.find_class": "every name is written down by itself and looked up in the allowlist",
    "marshal.loads": "the import system reads a .pyc; `open` says which",
    "object.__getattr__": "reading a function's attributes, done by every class that prints itself",
    "object.__setattr__": "setting one is: the snapshots find what it changed",
    "object.__delattr__": "as above",
    "builtins.id": "changes nothing",
    "sys._getframe": "warnings and dataclasses look at their caller",
    "sys._current_frames": "changes nothing",
    "sys.unraisablehook": "an error in a destructor is printed",
    "os.listdir": "the import system lists the folders of libraries",
    "os.scandir": "the import system lists the folders of libraries",
    "time.sleep": "changes nothing",
    "gc.get_objects": "changes nothing",
    "gc.get_referrers": "changes nothing",
    "gc.get_referents": "changes nothing",
    "array.__new__": "changes nothing",
    "mmap.__new__": "torch maps the very file that it was given",
    "ctypes.addressof": "torch and numpy look at their own memory",
    "cpython.run_startup": "changes nothing",
}


class Refused(PermissionError):
    """Something that the watched code may not do."""


class Watch:
    """Collects what happens between `start` and `stop`.

    `events` are the refused ones as (event, detail), `imported` the names of modules whose
    import began, `classes` what the C unpickler looked up. `target` may be read.
    """

    def __init__(self):
        self.armed = False
        self.target = ""
        self.events = []
        self.imported = []
        self.classes = []

    def install(self):
        sys.addaudithook(self._hook)

    def start(self, target=""):
        self.target, self.armed = target, True

    def stop(self):
        self.armed = False

    def _hook(self, event, args):
        if not self.armed:
            return
        self.armed = False  # what the hook itself does is no business of the file
        try:
            detail = self._detail(event, args)
        finally:
            self.armed = True
        if detail is not None:
            self.events.append((event, detail))
            raise Refused(f"{event}: {detail}")

    def _detail(self, event, args):
        """What is wrong about an event, or None."""
        if event == "pickle.find_class":
            self.classes.append(args)
        elif event == "import":
            self.imported.append(str(args[0]))
        elif event == "open":
            return self._opened(args)
        elif event in ("exec", "compile"):
            name = args[0].co_filename if event == "exec" else str(args[1])
            return None if _of_a_library(event, name, args) else name
        elif event == "ctypes.dlopen" and args[0] is None:
            return None  # the C library that is loaded already
        if event in INNOCENT or event in ("open", "exec", "compile"):
            return None
        return repr(args)[:200]

    def _opened(self, args):
        path, mode, flags = args
        if isinstance(path, int):
            return None  # a descriptor that is open already
        name = os.fsdecode(path)
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if (isinstance(flags, int) and flags & writes) or set(mode or "r") & set("wax+"):
            return f"{name} to write"
        if self.target and (name == self.target or name.startswith(self.target + "/")):
            return None
        if name.startswith(tempfile.gettempdir() + "/oracle-target"):
            return None
        if name.startswith(LIBRARIES) or name in ("/dev/urandom", "/proc/self/maps"):
            return None
        return name


def _of_a_library(event, name, args):
    if name.startswith(("<frozen ", *LIBRARIES)):
        return True
    # What makes methods out of text of its own while a library is imported: the caller is library
    # code, and the text is not one of the file. inspect parses a library's source (legacy files).
    return name.startswith(("<string>", "<attrs", "<__array_function__", "<unknown>")) and _made()


# numpy reads the header of an array with ast.literal_eval, which compiles and runs nothing.
_MAKERS = ("/collections/__init__.py", "/dataclasses.py", "/enum.py", "/typing.py", "/inspect.py")
_PARSERS = ("/numpy/lib/_format_impl.py", "/numpy/lib/format.py", "/attr/_make.py")


def _made():
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in (__file__, ast.__file__):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.endswith((*_MAKERS, *_PARSERS))
