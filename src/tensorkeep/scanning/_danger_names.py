"""The table behind `dangerous`: what harm is done, and by which names. Data only.

Sources: the advisories and bypasses published against pickle scanners, the standard library's
own index, torch 2.13 and numpy 2 searched for functions that run, load, write or import.
"""

from __future__ import annotations

RESOLVES = "would look up any function by its name, past every list of names"

_OS_PROCESS = (
    "system popen popen2 popen3 popen4 execl execle execlp execlpe execv execve execvp execvpe "
    "spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe posix_spawn posix_spawnp fork "
    "forkpty startfile"
)
_OS_FILES = (
    "remove unlink rename renames replace rmdir removedirs mkdir makedirs mkfifo mknod open write "
    "read chmod chown lchown link symlink truncate ftruncate walk listdir scandir stat sendfile"
)
_PATH_FILES = (
    "write_text write_bytes read_text read_bytes open unlink rename replace rmdir mkdir touch "
    "chmod symlink_to hardlink_to iterdir glob rglob"
)
_OS_STATE = "kill killpg _exit abort putenv unsetenv environ chdir chroot setuid setgid umask nice"


def _of(modules: str, names: str) -> str:
    """Every name of `names` in every module of `modules`."""
    return " ".join(f"{module}.{name}" for module in modules.split() for name in names.split())


GROUPS: tuple[tuple[str, str], ...] = (
    (
        "would start a process or a shell command",
        _of("os posix nt", _OS_PROCESS) + " subprocess _posixsubprocess pty commands popen2 "
        "platform.popen asyncio.create_subprocess_exec pipes _bootsubprocess test.support "
        "asyncio.create_subprocess_shell "
        "asyncio.subprocess asyncio.unix_events asyncio.base_events asyncio.base_subprocess "
        "multiprocessing _multiprocessing concurrent.futures.process distutils.spawn "
        "setuptools._distutils.spawn _osx_support _aix_support uuid._get_command_stdout "
        "uuid._popen imaplib.IMAP4_stream mailcap _pyrepl webbrowser antigravity pexpect "
        "paramiko fabric torch.multiprocessing torch.distributed.run torch.distributed.launch "
        "torch.distributed.elastic torch.utils.collect_env numpy.distutils numpy.f2py",
    ),
    (
        "would run Python code",
        _of("builtins", "exec eval compile execfile input apply breakpoint help")
        + " runpy code.interact code.InteractiveConsole code.InteractiveInterpreter "
        "code.compile_command codeop timeit trace.Trace trace.main cProfile profile.run "
        "profile.runctx profile.Profile hotshot pdb bdb doctest unittest lib2to3 idlelib pydoc "
        "_testcapi _xxsubinterpreters rlcompleter cgitb turtledemo _lsprof _tkinter "
        "torch.utils.benchmark "
        "torch.utils.hipify "
        "_interpreters IPython ipykernel torch.hub torch._inductor "
        "torch._dynamo torch._export torch.fx.graph_module torch.fx._symbolic_trace torch.compile "
        "torch._jit_internal torch.jit.frontend torch.testing torch._numpy.testing "
        "torch.utils.bottleneck torch.onnx.utils torch.package torch._library torch.library "
        "torch._sources torch.distributed.rpc torch.utils._config_module numpy.testing "
        "numpy.lib.utils pandas.eval pandas.core.computation sympy.sympify sympy.parsing numexpr "
        "transformers.dynamic_module_utils tensorflow.keras.layers.Lambda keras.layers.Lambda "
        "jinja2 mako hydra.utils nose pytest _pytest turtle tkinter site sitecustomize "
        "usercustomize dataclasses.make_dataclass collections.namedtuple typing.get_type_hints "
        "typing.ForwardRef logging.config",
    ),
    (
        "would read, write or delete files",
        _of("os posix nt", _OS_FILES)
        + " "
        + _of("pathlib.Path pathlib.PosixPath pathlib.WindowsPath", _PATH_FILES)
        + " io.open io.FileIO io.open_code io.TextIOWrapper io.BufferedWriter io.BufferedRandom "
        "builtins.open builtins.file codecs.open shutil tempfile fileinput linecache tokenize.open "
        "glob filecmp zipfile tarfile gzip bz2 lzma zipapp shelve dbm _dbm _gdbm anydbm sqlite3 "
        "_sqlite3 logging.FileHandler logging.handlers logging.basicConfig mmap netrc py_compile "
        "compileall numpy.save xml.dom xml.sax xml.etree.ElementTree.parse "
        "xml.etree.ElementTree.iterparse "
        "mailbox aifc wave sunau sndhdr imghdr ossaudiodev nis gettext mimetypes sysconfig uu "
        "argparse.FileType codecs.EncodedFile inspect.getsource pyclbr tabnanny msilib _msi cgi "
        "torch.utils.show_pickle torch.utils.model_dump numpy.savetxt numpy.savez "
        "numpy.savez_compressed "
        "numpy.fromfile numpy.genfromtxt numpy.loadtxt numpy.memmap numpy.DataSource "
        "numpy.lib._datasource numpy.lib.npyio numpy.lib._npyio_impl numpy.lib.format torch.save "
        "torch.from_file torch.UntypedStorage.from_file torch.FloatStorage.from_file "
        "torch.utils.tensorboard pandas.read_csv pandas.io pandas.read_table pandas.read_excel "
        "pandas.read_sql cv2.imwrite",
    ),
    (
        "would reach the network",
        "socket _socket ssl _ssl urllib urllib2 urllib3 http httplib httplib2 httpx requests "
        "aiohttp smtplib ftplib poplib imaplib nntplib telnetlib xmlrpc socketserver SocketServer "
        "asyncio asyncore asynchat wsgiref select selectors websocket websockets boto3 botocore "
        "fsspec s3fs gcsfs torch.distributed.init_process_group torch.distributed.TCPStore "
        "torch.distributed.distributed_c10d torch.distributed.rendezvous torch.utils.model_zoo "
        "huggingface_hub smtpd",
    ),
    (
        "would load or run native code",
        "ctypes _ctypes cffi _cffi_backend torch.ops torch.classes torch._ops "
        "torch.utils.cpp_extension torch.cuda.jiterator torch.cuda._compile_kernel "
        "numpy.ctypeslib numba llvmlite Cython pyximport triton tensorflow.load_op_library "
        "tensorflow.load_library",
    ),
    (
        "would import a module, which runs its code",
        "builtins.__import__ importlib _frozen_importlib _frozen_importlib_external imp _imp "
        "pkgutil modulefinder zipimport torch._utils._import_dotted_name",
    ),
    (
        RESOLVES,
        _of("builtins", "getattr setattr delattr globals locals vars dir __dict__")
        + " pkgutil.resolve_name pydoc.locate pydoc.resolve pydoc.safeimport unittest.mock "
        "inspect.getattr_static inspect.getmodule logging.config._resolve "
        + _of("operator _operator", "attrgetter methodcaller call setitem delitem getitem"),
    ),
    (
        "would call another function that the file names",
        _of("functools _functools", "partial partialmethod reduce cached_property")
        + " itertools.starmap itertools.accumulate itertools.takewhile itertools.dropwhile "
        "itertools.filterfalse itertools.groupby builtins.map builtins.filter builtins.sorted "
        "builtins.reduce threading _thread dummy_threading sched concurrent atexit signal "
        "_signal faulthandler contextlib.ExitStack weakref.finalize numpy.vectorize "
        "numpy.apply_along_axis numpy.apply_over_axes numpy.piecewise numpy.frompyfunc "
        "numpy.fromfunction numpy.lib._function_base_impl torch.utils._pytree "
        "torch.utils._cxx_pytree torch.utils.checkpoint torch.autograd.functional torch.func "
        "torch._functorch torch.vmap",
    ),
    (
        "would read another pickle, with everything that it may run",
        "pickle _pickle cPickle pickletools pstats dill cloudpickle jsonpickle joblib.load yaml "
        "_yaml "
        "pandas.read_pickle numpy.load torch.load torch.storage._load_from_bytes "
        "torch.serialization.load torch.serialization._load torch.serialization._legacy_load "
        "torch.jit.load torch.jit._serialization torch.export.load "
        "torch.distributed.checkpoint.state_dict_loader torch._weights_only_unpickler "
        "keras.models.load_model tensorflow.saved_model",
    ),
    (
        "would make a function out of bytes of the file",
        "marshal types.CodeType types.FunctionType types.LambdaType types.MethodType "
        "types.new_class types.coroutine new.code new.function cloudpickle.cloudpickle "
        "cloudpickle.cloudpickle_fast dill._dill torch.fx.graph_module.reduce_graph_module "
        "torch.fx.graph_module.reduce_package_graph_module",
    ),
    (
        "would change or end the running process",
        _of("os posix nt", _OS_STATE)
        + " sys builtins.exit builtins.quit _sitebuiltins gc resource copyreg.pickle "
        "tracemalloc _tracemalloc time.sleep "
        "locale.setlocale numpy.seterr numpy.setbufsize numpy.set_printoptions logging.disable "
        "logging.shutdown logging.setLoggerClass torch.set_rng_state torch.set_printoptions "
        "torch.set_grad_enabled torch.use_deterministic_algorithms torch.seed torch.backends "
        "copyreg.constructor copyreg.add_extension copyreg.remove_extension "
        "copyreg.clear_extension_cache warnings.filterwarnings warnings.simplefilter "
        "random.seed numpy.random.seed numpy.random.set_state torch.manual_seed torch.random "
        "torch.set_default_dtype torch.set_default_device torch.set_num_threads",
    ),
    (
        "would reach the operating system",
        "os posix nt posixpath ntpath genericpath platform pwd grp spwd crypt fcntl termios tty "
        "readline curses syslog winreg _winreg _winapi msvcrt winsound psutil getpass",
    ),
    (
        "would install packages, which runs their code",
        "pip setuptools ensurepip venv distutils pkg_resources easy_install",
    ),
)
