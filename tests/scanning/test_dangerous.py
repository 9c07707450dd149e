"""The table of harm: it decides between suspicious and dangerous, never about safe."""

from __future__ import annotations

import pytest

from tensorkeep.pickles import Global
from tensorkeep.scanning import allowlist, dangerous
from tensorkeep.scanning._danger_more import MORE
from tensorkeep.scanning._danger_names import GROUPS, RESOLVES

# One name of each published technique: (module, name, a word of what it would do).
KNOWN = [
    ("os", "system", "shell"),
    ("posix", "system", "shell"),
    ("nt", "system", "shell"),
    ("posix", "posix_spawnp", "process"),
    ("subprocess", "Popen", "process"),
    ("subprocess", "check_output", "process"),
    ("pty", "spawn", "process"),
    ("asyncio", "create_subprocess_shell", "process"),
    ("asyncio.subprocess", "create_subprocess_exec", "process"),
    ("multiprocessing.util", "spawnv_passfds", "process"),
    ("distutils.spawn", "spawn", "process"),
    ("_osx_support", "_read_output", "process"),
    ("_aix_support", "_read_cmd_output", "process"),
    ("uuid", "_get_command_stdout", "process"),
    ("imaplib", "IMAP4_stream", "process"),
    ("_pyrepl.pager", "pipe_pager", "process"),
    ("mailcap", "findmatch", "process"),
    ("webbrowser", "open", "process"),
    ("torch.utils.collect_env", "run", "process"),
    ("numpy.f2py.crackfortran", "myeval", "process"),
    ("builtins", "exec", "code"),
    ("builtins", "eval", "code"),
    ("builtins", "compile", "code"),
    ("__builtin__", "eval", "code"),
    ("builtins", "__import__", "import"),
    ("builtins", "breakpoint", "code"),
    ("runpy", "run_path", "code"),
    ("runpy", "_run_code", "code"),
    ("code", "InteractiveInterpreter", "code"),
    ("codeop", "compile_command", "code"),
    ("cProfile", "runctx", "code"),
    ("profile", "run", "code"),
    ("pdb", "run", "code"),
    ("bdb", "Bdb", "code"),
    ("timeit", "timeit", "code"),
    ("trace", "Trace", "code"),
    ("doctest", "debug_script", "code"),
    ("idlelib.pyshell", "ModifiedInterpreter", "code"),
    ("lib2to3.pgen2.pgen", "ParserGenerator", "code"),
    ("torch.hub", "load", "code"),
    ("torch._inductor.codecache", "compile_file", "code"),
    ("torch._dynamo.guards", "GuardBuilder", "code"),
    ("torch.fx.graph_module", "reduce_graph_module", "function"),
    ("torch.utils._config_module", "ConfigModule", "code"),
    ("numpy.testing._private.utils", "runstring", "code"),
    ("torch.utils.cpp_extension", "load_inline", "native"),
    ("torch.ops", "load_library", "native"),
    ("ctypes", "CDLL", "native"),
    ("importlib", "import_module", "import"),
    ("pkgutil", "resolve_name", "look up"),
    ("pydoc", "locate", "look up"),
    ("builtins", "getattr", "look up"),
    ("builtins", "setattr", "look up"),
    ("operator", "attrgetter", "look up"),
    ("_operator", "methodcaller", "look up"),
    ("functools", "partial", "another function"),
    ("functools", "reduce", "another function"),
    ("builtins", "map", "another function"),
    ("itertools", "starmap", "another function"),
    ("marshal", "loads", "function"),
    ("types", "CodeType", "function"),
    ("types", "FunctionType", "function"),
    ("cloudpickle.cloudpickle", "_make_function", "function"),
    ("dill._dill", "_create_code", "function"),
    ("pickle", "loads", "pickle"),
    ("_pickle", "loads", "pickle"),
    ("torch", "load", "pickle"),
    ("torch.storage", "_load_from_bytes", "pickle"),
    ("torch.jit", "load", "pickle"),
    ("numpy", "load", "pickle"),
    ("joblib", "load", "pickle"),
    ("pandas", "read_pickle", "pickle"),
    ("yaml", "unsafe_load", "pickle"),
    ("builtins", "open", "files"),
    ("io", "open", "files"),
    ("_io", "FileIO", "files"),
    ("shutil", "rmtree", "files"),
    ("tempfile", "mktemp", "files"),
    ("logging", "FileHandler", "files"),
    ("logging.handlers", "RotatingFileHandler", "files"),
    ("shelve", "open", "files"),
    ("dbm.dumb", "open", "files"),
    ("sqlite3", "connect", "files"),
    ("numpy", "save", "files"),
    ("numpy", "memmap", "files"),
    ("torch", "save", "files"),
    ("socket", "create_connection", "network"),
    ("ssl", "get_server_certificate", "network"),
    ("urllib.request", "urlopen", "network"),
    ("http.client", "HTTPConnection", "network"),
    ("smtplib", "SMTP", "network"),
    ("ftplib", "FTP", "network"),
    ("requests", "get", "network"),
    ("pip", "main", "packages"),
    ("pip._internal.cli.main", "main", "packages"),
    ("ensurepip", "bootstrap", "packages"),
    ("sys", "exit", "process"),
    ("os", "_exit", "process"),
    ("os", "getpid", "operating system"),
    ("platform", "uname", "operating system"),
    ("gettext", "c2py", "code"),
    ("rlcompleter", "Completer", "code"),
    ("pipes", "Template", "process"),
    ("copy", "_reconstruct", "another function"),
    ("pstats", "Stats", "pickle"),
    ("encodings", "search_function", "import"),
    ("warnings", "_getcategory", "import"),
    ("contextvars", "Context.run", "another function"),
    ("functools", "update_wrapper", "running process"),
    ("torch.utils.benchmark", "Timer", "code"),
    (
        "torch.distributed.nn.jit.instantiator",
        "get_arg_return_types_from_interface",
        "code",
    ),
    ("torch.jit", "CompilationUnit", "code"),
    ("torch.utils._pytree", "tree_map", "another function"),
    ("torch.serialization", "add_safe_globals", "running process"),
    ("pandas", "read_json", "files"),
    ("PIL.ImageMath", "eval", "code"),
    ("joblib.externals.cloudpickle", "loads", "pickle"),
    ("sklearn.externals.joblib", "load", "pickle"),
    ("transformers.agents.python_interpreter", "evaluate_python_code", "code"),
    ("git.cmd", "Git", "process"),
    ("win32api", "ShellExecute", "process"),
    ("redis", "Redis", "network"),
    ("pydantic.utils", "import_string", "look up"),
    ("onnxruntime", "InferenceSession", "native"),
    ("numpy.core.records", "fromfile", "files"),
    ("numpy", "ndarray.tofile", "files"),
    ("transformers", "AutoModel.from_pretrained", "network"),
    ("transformers.models.bert.modeling_bert", "BertModel.from_pretrained", "network"),
    ("shop.models", "Net.from_pretrained", "network"),
    ("shop.models", "Net.push_to_hub", "network"),
    ("shop.models", "Net.save_pretrained", "files"),
    ("shop.models", "Net.load_from_checkpoint", "pickle"),
    ("lightning.fabric.utilities.cloud_io", "_load", "pickle"),
    ("lightning_fabric.utilities.cloud_io", "_load", "pickle"),
    ("torch.utils.file_baton", "FileBaton", "files"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper", "code"),
]


@pytest.mark.parametrize(("module", "name", "word"), KNOWN)
def test_a_known_name_has_words(module, name, word):
    words = dangerous.danger(module, name)
    assert words.startswith("would ")
    assert word in words


@pytest.mark.parametrize(
    ("module", "name", "word"),
    [
        ("torch.nn.parallel.distributed", "os.getpid", "operating system"),
        ("torch.serialization", "os.system", "shell"),
        ("torch.serialization", "os", "operating system"),
        ("torch._tensor_str", "sys.modules", "running process"),
        ("pkg", "Model.__init__.__globals__", "look up"),
        ("pkg", "a.b.c.subprocess.Popen", "process"),
        ("pkg", "__builtins__", "look up"),
        ("pathlib", "PosixPath.unlink", "files"),
    ],
)
def test_another_door_to_a_module_is_the_module(module, name, word):
    assert word in dangerous.danger(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("__main__", "Net"),
        ("mypackage.models", "ResNet"),
        ("torch.nn.modules.linear", "Linear"),
        ("ultralytics.nn.tasks", "DetectionModel"),
        ("ostrich", "Bird"),
        ("osmium.os2", "Thing"),
        ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
        ("torch.distributed.tensor", "DTensor"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("code.models", "Net"),
        ("itertools", "count"),
        ("scipy.optimize._optimize", "OptimizeResult"),
        ("sklearn.linear_model._logistic", "LogisticRegression"),
        ("lightgbm.basic", "Booster"),
        ("torch.utils.hooks", "RemovableHandle"),
        ("torch.nn.utils.weight_norm", "WeightNorm"),
        ("torchvision.models.resnet", "ResNet"),
        ("torch.fx.proxy", "Proxy"),
        ("wandb.sdk.wandb_config", "Config"),
        ("datasets.arrow_dataset", "Dataset"),
        ("operator", "itemgetter"),
        ("transformers", "AutoModel"),
        ("transformers.models.bert.modeling_bert", "BertModel"),
        ("shop.models", "from_pretrained_config"),
    ],
)
def test_an_ordinary_class_has_none(module, name):
    assert dangerous.danger(module, name) == ""


def test_no_allowlisted_name_is_called_dangerous_for_what_it_is():
    # The entry goes first; its name only looks like Python's machinery.
    both = {
        f"{entry.module}.{entry.name}"
        for entry in allowlist.ENTRIES
        if dangerous.danger(entry.module, entry.name) and entry.makes != "enum"
    }
    # Harmless with bytes of the file, which are judged in turn, and with a container of its own.
    assert both == {
        "copyreg.__newobj__",
        "torch.storage._load_from_bytes",
        "builtins.iter",
        # Tuples with names, in a module that reaches the network.
        *(f"urllib.parse.{name}" for name in ("ParseResult", "SplitResult", "DefragResult")),
    }


def test_every_row_is_a_name():
    rows = [row for _, names in (*GROUPS, *MORE) for row in names.split()]
    assert all(part.isidentifier() for row in rows for part in row.split("."))
    assert max(row.count(".") for row in rows) < dangerous._LONGEST_ROW


def test_every_group_says_what_would_happen():
    assert all(words.startswith("would ") for words, _ in GROUPS)
    assert len({words for words, _ in GROUPS}) == len(GROUPS)


def test_every_group_says_what_is_gained():
    assert dangerous.GAINS.keys() == {words for words, _ in GROUPS}
    assert "keys" in dangerous.gain("os", "system")
    assert dangerous.gain("mypackage", "Net") == ""


def test_a_name_of_a_million_dots_is_quick():
    assert dangerous.danger("a." * 500_000, "b." * 500_000) == ""


@pytest.mark.parametrize(
    ("args", "harmful"),
    [
        ((Global("pkg.models", "Net", 0), "Inner"), False),
        ((Global("pkg.models", "Net", 0), "__globals__"), True),
        ((Global("os", "path", 0), "join"), True),
        ((Global("torch", "serialization", 0), "os"), True),
        ((Global("torch", "hub", 0), "load"), True),
        ((Global("transformers", "AutoModel", 0), "from_pretrained"), True),
        ((Global("pkg", "x", 0, operands=("a", "b")), "y"), True),
        ((Global("pkg.models", "Net", 0), "Inner", None), True),
        ((Global("pkg.models", "Net", 0), 3), True),
        (("os", "system"), True),
        ((), True),
        (Global("pkg", "args", 0), True),
    ],
)
def test_getattr_is_harmless_only_as_protocol_2_writes_it(args, harmful):
    assert bool(dangerous.attribute_danger(args)) is harmful


def test_dunders():
    assert dangerous.is_dunder("__reduce__")
    assert not dangerous.is_dunder("_private")
    assert RESOLVES.startswith("would look up")
