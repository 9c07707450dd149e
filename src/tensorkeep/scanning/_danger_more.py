"""More rows of the table behind `dangerous`: torch's inside and popular packages. Data only.

A package whose classes honest checkpoints name is listed by its harmful names alone. Sources: the
packages' own references, read for what runs, spawns, opens, fetches, loads or looks names up.
"""

from __future__ import annotations

from tensorkeep.scanning._danger_names import GROUPS

(
    _PROCESS, _CODE, _FILES, _NETWORK, _NATIVE, _IMPORT, _RESOLVE, _CALL, _PICKLE, _FUNCTION,
    _CHANGE, _SYSTEM, _INSTALL,
) = (words for words, _ in GROUPS)  # fmt: skip

LIBRARY: tuple[tuple[str, str], ...] = (
    (
        _PROCESS,
        "pipes cgitb nturl2path multiprocess billiard pathos loky ptyprocess test.support "
        "ctypes.util._findLib_gcc _winapi.CreateProcess _pyrepl.pager "
        "xml.dom.domreg.getDOMImplementation",
    ),
    (
        _CODE,
        "gettext.c2py gettext.GNUTranslations rlcompleter turtledemo test cmd.Cmd "
        "optparse.Values dataclasses._create_fn dataclasses.dataclass typing._eval_type "
        "annotationlib inspect._main string.Formatter _lsprof _testinternalcapi _testmultiphase "
        "_ctypes_test future.utils.exec_ past.builtins six.exec_ six.moves",
    ),
    (
        _FILES,
        "uu binhex wave sunau aifc chunk imghdr sndhdr mailbox mimetypes tabnanny pyclbr "
        "ossaudiodev msilib nis zoneinfo._tzpath configparser.ConfigParser.read "
        "hashlib.file_digest xml.etree.ElementTree.parse xml.etree.ElementTree.iterparse "
        "xml.sax.parse xml.dom.minidom.parse json.tool codecs.EncodedFile plistlib.load "
        "inspect.getsource inspect.getsourcelines inspect.getsourcefile importlib.resources",
    ),
    (_NETWORK, "cgi _scproxy _overlapped logging.handlers.SocketHandler"),
    (
        _IMPORT,
        "xml.sax.make_parser encodings.search_function warnings._getcategory "
        "warnings._setoption warnings._processoptions pickle.whichmodule six._import_module "
        "six._importer xml.sax._create_parser test.support.import_helper",
    ),
    (
        _RESOLVE,
        "inspect.getmembers inspect.currentframe inspect.stack inspect.getframeinfo "
        "types.ModuleType types.DynamicClassAttribute builtins.super string._string "
        "weakref.WeakMethod _string.formatter_field_name_split",
    ),
    (
        _CALL,
        "copy._reconstruct copy.copy copy.deepcopy contextvars.Context functools.singledispatch "
        "functools.wraps functools.lru_cache functools.cmp_to_key "
        "functools.singledispatchmethod _functools.cmp_to_key codecs.register builtins.iter "
        "builtins.property builtins.classmethod builtins.staticmethod heapq.merge "
        "heapq.nlargest heapq.nsmallest bisect.insort queue.SimpleQueue",
    ),
    (_PICKLE, "pstats.Stats tracemalloc.Snapshot xmlrpc.client.loads"),
    (
        _CHANGE,
        "functools.update_wrapper locale.setlocale locale.resetlocale decimal.setcontext "
        "decimal.getcontext tracemalloc threading.settrace builtins.__build_class__ "
        "zoneinfo.reset_tzpath sys.setrecursionlimit readline.set_completer",
    ),
    (_SYSTEM, "sysconfig _winreg _posixshmem _curses _tkinter nt pwd ossaudiodev _uuid _wmi"),
    (_INSTALL, "wheel virtualenv conda uv build poetry pipenv"),
)

_TORCH: tuple[tuple[str, str], ...] = (
    (
        _CODE,
        "torch.jit.script torch.jit.trace torch.jit.CompilationUnit torch.jit._script "
        "torch.jit._trace torch.jit._recursive torch._C.CompilationUnit "
        "torch._C.import_ir_module torch._C._jit_script_compile torch.fx.Interpreter "
        "torch.fx.interpreter torch.fx.graph torch.fx.symbolic_trace torch.fx.experimental "
        "torch.fx.passes torch.utils.benchmark torch.utils.hipify torch.utils.model_dump "
        "torch.utils.mobile_optimizer torch._higher_order_ops torch._logging torch._guards "
        "torch._vendor torch._custom_op torch._custom_ops torch.onnx torch.distributed.nn "
        "torch.backends._nnapi torch.contrib torch.utils._sympy "
        "torch.jit.unsupported_tensor_ops torch.distributed.elastic.multiprocessing "
        "torch.testing._internal torchgen functorch",
    ),
    (
        _FILES,
        "torch.export.save torch.distributed.checkpoint.filesystem.FileSystem "
        "torch.distributed.checkpoint.state_dict_saver "
        "torch.distributed.checkpoint.format_utils torch.utils.show_pickle "
        "torch.utils._content_store torch.cuda.memory._dump_snapshot torch.cuda._memory_viz "
        "torch.profiler.profiler.profile torch.jit.save torch.storage.UntypedStorage.from_file "
        "torch.UntypedStorage._new_shared_filename_cpu torch.serialization.save "
        "torch.utils.file_baton torch.serialization._open_file torch.autograd.profiler",
    ),
    (
        _NATIVE,
        "torch._C._load_library torch.utils._triton torch.utils._cpp_extension_versioner "
        "torch._C._jit_to_backend torch.cuda._nvrtc torch.cuda.nvrtc torch.cuda.CUDAGraph",
    ),
    (
        _IMPORT,
        "torch._utils_internal torch._classes torch.utils.backend_registration "
        "torch._utils.ExceptionWrapper torch.distributed._tools.mod_tracker",
    ),
    (
        _CALL,
        "torch.utils._pytree.tree_map torch.utils._pytree._register_pytree_node "
        "torch.utils.checkpoint torch.autograd.functional torch.autograd.graph "
        "torch.nn.parallel.parallel_apply torch.nn.parallel.data_parallel.data_parallel "
        "torch.overrides.handle_torch_function torch.utils.data._utils "
        "torch.func.functional_call torch.utils.data.graph",
    ),
    (
        _PICKLE,
        "torch.export.pt2_archive torch.multiprocessing.reductions torch.utils.serialization "
        "torch.distributed.checkpoint.load",
    ),
    (
        _CHANGE,
        "torch.set_printoptions torch.set_default_tensor_type "
        "torch.use_deterministic_algorithms torch.serialization.add_safe_globals "
        "torch.serialization.safe_globals torch.serialization.register_package torch.backends "
        "torch.set_grad_enabled torch._C._set_grad_enabled torch.set_warn_always "
        "torch.nn.modules.module.register_module "
        "torch.nn.modules.module.register_module_forward_hook torch.seed torch.set_rng_state "
        "torch.nn.modules.module.register_module_forward_pre_hook torch._C._log_api_usage_once",
    ),
)

_PACKAGES: tuple[tuple[str, str], ...] = (
    (
        _PROCESS,
        "invoke sh plumbum ansible docker kubernetes git.cmd git.Repo envoy delegator "
        "gevent.subprocess eventlet.green trio.run_process trio.lowlevel.open_process "
        "anyio.run_process anyio.open_process win32api win32process win32com win32pipe "
        "pythoncom wmi tornado.process twisted.internet accelerate.commands "
        "accelerate.launchers accelerate.utils.launch lightning.app lightning_fabric.cli "
        "pytorch_lightning.cli mlflow.projects ray.init ray.remote dask.distributed "
        "dask.multiprocessing matplotlib.texmanager PIL.ImageShow PIL.ImageGrab "
        "tqdm.contrib.concurrent",
    ),
    (
        _CODE,
        "pandas.DataFrame.eval pandas.DataFrame.query pandas.core.frame.DataFrame.eval "
        "pandas.core.frame.DataFrame.query scipy._lib._testutils sklearn.utils._testing "
        "transformers.agents transformers.tools transformers.commands transformers.pipelines "
        "transformers.utils.import_utils sympy.core.sympify sympy.utilities.lambdify "
        "sympy.printing PIL.ImageMath decorator.FunctionMaker attr._make attr.make_class "
        "attrs.make_class fire typing_extensions.get_type_hints tornado.template "
        "django.template django.core.management werkzeug.debug werkzeug.utils.import_string "
        "nbconvert nbformat jupyter_client jupyter_core execnet py.code mlflow.pyfunc "
        "streamlit.web gradio.load asteval simpleeval RestrictedPython numexpr.evaluate "
        "keras.src.layers.core.lambda_layer keras.layers.core.lambda_layer "
        "tensorflow.py_function tensorflow.numpy_function tensorflow.python.ops.script_ops "
        "jax.pure_callback jax.experimental.io_callback hydra._internal omegaconf._utils",
    ),
    (
        _FILES,
        "numpy.core.records.fromfile numpy.rec.fromfile numpy.ma.mrecords numpy.core.memmap "
        "numpy._core.memmap numpy.ndarray.tofile numpy.ndarray.dump numpy.show_config "
        "numpy.lib.introspect pandas.read_json pandas.read_parquet pandas.read_html "
        "pandas.read_xml pandas.read_feather pandas.read_hdf pandas.read_orc pandas.read_sas "
        "pandas.read_stata pandas.read_fwf pandas.ExcelFile pandas.ExcelWriter pandas.HDFStore "
        "scipy.io scipy.datasets cv2.imread cv2.FileStorage cv2.VideoCapture PIL.Image.open "
        "h5py.File zarr.open tables.open_file netCDF4.Dataset pyarrow.fs pyarrow.parquet "
        "smart_open lxml.etree.parse tensorflow.io tensorflow.python.lib.io toml.load "
        "ruamel.yaml joblib.dump joblib.memory joblib.numpy_pickle.dump torchvision.io "
        "torchaudio.load safetensors.torch.save_file safetensors.numpy.save_file "
        "mmengine.fileio iopath fvcore.common",
    ),
    (
        _NETWORK,
        "pycurl grpc scrapy selenium playwright zmq redis pymongo psycopg2 psycopg pymysql "
        "MySQLdb sqlalchemy.create_engine sqlalchemy.engine google.cloud azure "
        "datasets.load_dataset datasets.load datasets.utils.file_utils transformers.utils.hub "
        "sklearn.datasets wandb.init wandb.login wandb.apis comet_ml neptune clearml "
        "nltk.download nltk.downloader torchtext.utils ultralytics.utils.downloads "
        "timm.models.hub keras.utils.get_file tensorflow.keras.utils.get_file gdown kaggle "
        "pysftp twisted tornado.httpclient tornado.simple_httpclient tornado.netutil "
        "gradio.Interface mmengine.hub onnx.hub",
    ),
    (
        _NATIVE,
        "cupy.RawKernel cupy.RawModule cupy.cuda paddle.utils.cpp_extension pybind11 pycuda "
        "pyopencl numpy._core._multiarray_tests numpy.core._multiarray_tests "
        "onnxruntime.InferenceSession onnxruntime.SessionOptions tvm jpype "
        "scipy.LowLevelCallable deepspeed.ops.op_builder",
    ),
    (
        _RESOLVE,
        "pydantic.utils.import_string pydantic.v1.utils pydantic._internal._validators "
        "pydantic.ImportString django.utils.module_loading hydra.core numpy.lib._utils_impl "
        "wrapt.resolve_path wrapt.importer celery.utils.imports kombu.utils.imports",
    ),
    (
        _CALL,
        "joblib.Parallel joblib.delayed joblib.parallel scipy.optimize.minimize "
        "scipy.optimize.brute sklearn.base.clone numpy.nditer numpy.lib.function_base "
        "numpy.lib._shape_base_impl pandas.DataFrame.apply pandas.Series.apply "
        "pandas.core.apply toolz cytoolz tree.map_structure",
    ),
    (
        _PICKLE,
        "joblib.numpy_pickle.load joblib.externals sklearn.externals pandas.io.pickle "
        "ray.cloudpickle srsly.cloudpickle srsly.pickle_loads spacy.load nltk.data.load "
        "gensim.utils.unpickle networkx.read_gpickle pyspark.serializers pyspark.cloudpickle "
        "fastai.learner.load_learner fastai.learner.load_model torchvision.models._api "
        "mlflow.pytorch mlflow.sklearn paddle.load paddle.framework.io kombu.serialization "
        "skops.io.load xgboost.Booster.load_model keras.saving keras.src.saving "
        "keras.src.legacy.saving tensorflow.keras.models.load_model tensorflow.keras.saving "
        "catboost.CatBoost.load_model compress_pickle hickle klepto diskcache pickleshare "
        "zodbpickle ZODB jsonpickle.unpickler lightning.pytorch.core.saving "
        "pytorch_lightning.core.saving lightning_fabric.utilities.load "
        "accelerate.utils.other.load timm.models.helpers lightning.fabric.utilities.cloud_io "
        "lightning_fabric.utilities.cloud_io pytorch_lightning.utilities.cloud_io",
    ),
)

# What a method of this name does whatever class it is found in: frameworks give it to hundreds.
METHODS: dict[str, str] = {
    "from_pretrained": _NETWORK,
    "from_single_file": _NETWORK,
    "push_to_hub": _NETWORK,
    "save_pretrained": _FILES,
    "load_from_checkpoint": _PICKLE,
}

MORE: tuple[tuple[str, str], ...] = (*LIBRARY, *_TORCH, *_PACKAGES)
