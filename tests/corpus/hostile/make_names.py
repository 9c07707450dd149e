"""Hostile files by the name that they call: kind A, a family of names each, and kind B, its ways.

python tests/corpus/hostile/make_names.py needs the standard library only. What a scan must find
follows from what the call does when it is made; `tests/oracle` shows that it is made.
"""

from __future__ import annotations

from make import DANGEROUS, SUSPICIOUS, keep
from tricks import ARG, OD, P2, P4, checkpoint, g, i, sg, state_dict, u

TEXT = u("tensorkeep")
CODE = u("'tensorkeep'")
LOCAL = u("127.0.0.1")
NOWHERE = u("/nonexistent/tensorkeep")


def words(*texts):
    """A list of texts."""
    return b"](" + b"".join(map(u, texts)) + b"e"


def call(path, *args, name=""):
    """REDUCE of a dotted path with these arguments."""
    module, _, last = path.rpartition(".")
    return sg(module, name or last) + b"(" + b"".join(args) + b"tR"


SPAWN = words("echo", "tensorkeep")
# The family, and a call of one of its names with an argument that does no harm.
FAMILIES = {
    "exec": call("builtins.exec", CODE),
    "eval": call("builtins.eval", CODE),
    "compile": call("builtins.compile", CODE, TEXT, u("eval")),
    "dunder_import": call("builtins.__import__", u("this")),
    "runpy": call("runpy._run_code", CODE, b"}"),
    "cprofile": call("cProfile.run", CODE),
    "profile": call("profile.run", CODE),
    "pdb": call("pdb.run", CODE),
    "bdb": call("bdb.set_trace"),
    "timeit": call("timeit.timeit", u("pass"), u("pass"), b"N", i(1)),
    "trace": call("trace.main"),
    "doctest": call("doctest.debug_script", CODE, b"\x88"),
    "code": call("code.interact", TEXT),
    "codeop": call("codeop.compile_command", CODE),
    "subprocess": call("subprocess.Popen", SPAWN),
    "uuid_command": call("uuid._get_command_stdout", u("echo"), TEXT),
    "osx_support": call("_osx_support._read_output", u("echo tensorkeep")),
    "aix_support": call("_aix_support._aix_bos_rte"),
    "imap_stream": call("imaplib.IMAP4_stream", u("echo tensorkeep")),
    "pyrepl": call("_pyrepl.pager.pipe_pager", TEXT, u("cat")),
    "mailcap": call(
        "mailcap.findmatch",
        b"}" + u("a/b") + b"]}(" + u("test") + u("echo tensorkeep") + u("view") + TEXT + b"uas",
        u("a/b"),
    ),
    "multiprocessing_util": call(
        "multiprocessing.util.spawnv_passfds", b"C\x09/bin/echo", b"]C\x04echoa", b"]"
    ),
    "distutils_spawn": call("distutils.spawn.spawn", SPAWN),
    "pty": call("pty.spawn", words("true")),
    "fork": call("posix.fork"),
    "resolve_name": call("pkgutil.resolve_name", u("os:getpid")) + b")R",
    "import_module": call("importlib.import_module", u("this")),
    "pydoc_locate": call("pydoc.locate", u("os.getpid")) + b")R",
    "logging_resolve": call("logging.config._resolve", u("os.getpid")) + b")R",
    "methodcaller": call("operator.methodcaller", u("getpid"))
    + sg("importlib", "import_module")
    + u("os")
    + b"\x85R\x85R",
    "partial": call("functools.partial", sg("os", "getpid")) + b")R",
    "map": call("collections.deque", call("builtins.map", sg("os", "getpgid"), b"]K\0a")),
    "thread": call("_thread.start_new_thread", sg("os", "getpid"), b")"),
    "atexit": call("atexit.register", sg("os", "getpid")),
    "marshal": call("marshal.loads", b"C\x01N"),
    "code_type": call("types.FunctionType", call("builtins.compile", CODE, TEXT, u("eval")), b"}"),
    "pickle_loads": call("pickle.loads", b"C\x04\x80\x02N."),
    "pip": call("pip.main", words("--version")),
    "ensurepip": call("ensurepip.version"),
    "ctypes": call("ctypes.CDLL", b"N"),
    "torch_collect_env": call("torch.utils.collect_env.run", u("echo tensorkeep")),
    "torch_hub": call("torch.hub._load_local", NOWHERE, TEXT),
    "torch_fx": call("torch.fx.graph_module._exec_with_source", CODE, b"}"),
    "torch_import": call("torch._utils._import_dotted_name", u("os.getpid")) + b")R",
    "numpy_runstring": call("numpy.testing._private.utils.runstring", CODE, b"}"),
    "numpy_fromfile": call("numpy.fromfile", NOWHERE),
    "ssl": call("ssl.get_server_certificate", b"(" + LOCAL + b"K\x01t"),
    "urllib": call("urllib.request.urlopen", u("http://127.0.0.1:1/")),
    "smtplib": call("smtplib.SMTP", LOCAL, i(1)),
    "file_handler": call("logging.FileHandler", NOWHERE),
    "sqlite3": call("sqlite3.connect", u(":memory:")),
    "shelve": call("shelve.open", NOWHERE),
    "pstats": call("pstats.Stats", NOWHERE),
    "xml_parse": call("xml.dom.minidom.parse", NOWHERE),
    "locale": call("locale.setlocale", i(0), u("C")),
}

# Attributes of modules that are imported by others, private twins, names that walk.
WAYS = {
    "underscore_door": sg("random", "_os.system") + ARG + b"R",
    "argparse_door": sg("argparse", "_os.system") + ARG + b"R",
    "torch_door": sg("torch", "os.system") + ARG + b"R",
    "functional_door": sg("torch.nn.functional", "torch.os.system") + ARG + b"R",
    "path_door": sg("os.path", "os.system") + ARG + b"R",
    "uuid_door": sg("uuid", "os.system") + ARG + b"R",
    "pickle_door": sg("torch.serialization", "pickle.loads") + b"C\x04\x80\x02N.\x85R",
    "submodule_of_torch": sg("torch", "hub._load_local") + b"(" + NOWHERE + TEXT + b"tR",
    "globals_of_a_function": sg("torch.nn.functional", "relu.__globals__.get") + u("x") + b"\x85R",
    "subclasses_of_object": sg("builtins", "object.__subclasses__") + b")R",
    "private_io": sg("_io", "open") + NOWHERE + b"\x85R",
    "private_operator": sg("_operator", "attrgetter") + u("system") + b"\x85R",
    "python_io": sg("_pyio", "open") + NOWHERE + b"\x85R",
    "method_of_an_allowed_class": sg("pathlib", "PosixPath.touch")
    + sg("pathlib", "PosixPath") + NOWHERE + b"\x85R\x85R",
}  # fmt: skip


def main():
    for name, payload in FAMILIES.items():
        value = checkpoint(state_dict(payload, proto=P4))
        keep(f"name_{name}", "A", DANGEROUS, "pickle/dangerous-call", value)
    for name, payload in WAYS.items():
        value = checkpoint(state_dict(payload, proto=P4))
        keep(f"way_{name}", "B", DANGEROUS, "pickle/dangerous-call", value)
    # Python 2's names are mapped below protocol 3, and are other names above.
    mapped = g("__builtin__", "execfile") + NOWHERE + b"\x85R"
    keep(
        "way_python_2_names",
        "B",
        DANGEROUS,
        "pickle/dangerous-call",
        checkpoint(state_dict(g("__builtin__", "eval") + CODE + b"\x85R", proto=P2)),
    )
    late = b"\x80\x04" + b"\x80\x02" + b"}" + u("x") + mapped.replace(b"execfile", b"eval") + b"s."
    keep("way_protocol_lowered_late", "B", DANGEROUS, "pickle/dangerous-call", checkpoint(late))
    kept = call("collections.defaultdict", sg("os", "getpid"))
    keep(
        "way_kept_as_a_factory",
        "B",
        DANGEROUS,
        "pickle/dangerous-import",
        checkpoint(state_dict(kept, proto=P4)),
    )
    nested = sg("models", "Net.Block") + b")\x81"
    keep(
        "way_dotted_class_of_a_stranger",
        "B",
        SUSPICIOUS,
        "pickle/dotted-name",
        checkpoint(state_dict(nested, OD, proto=P4)),
    )


if __name__ == "__main__":
    main()
