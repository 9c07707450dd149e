"""TorchScript's operators: which of them do more than compute, and whose are known.

Made by looking through every schema that torch 2.13 registers (`torch._C._jit_get_all_schemas`):
a name stands here if its schema takes a file, a host or a process group, or if it hands out
memory that no tensor owns. Those of torchvision are its operators that compute (0.28).
"""

from __future__ import annotations

_NETWORK = "sends data to other processes or waits for them"
_MEMORY = "reads or writes memory by an address or a size that the code chooses"

HARMFUL: dict[str, str] = {
    "aten::save": "writes any file that the process may write",
    "aten::from_file": "maps any file that the process may read, and can create or change it",
    "debugprims::load_tensor": "reads a file",
    "image::read_file": "reads any file that the process may read",
    "image::write_file": "writes any file that the process may write",
    "prim::PythonOp": "calls a function of Python",
    "prim::IgnoredPythonOp": "calls a function of Python",
    "prim::rpc_async": _NETWORK,
    "prim::rpc_remote": _NETWORK,
    "prim::rpc_sync": _NETWORK,
    "mkldnn::data_ptr": "tells an address in memory",
    "inductor::_reinterpret_tensor": _MEMORY,
    "inductor::_alloc_from_pool": _MEMORY,
    "inductor::resize_storage_bytes_": _MEMORY,
    "symm_mem::stream_write_value32_": _MEMORY,
    "symm_mem::memset32_": _MEMORY,
}

# Those of torch itself that compute and nothing else (but for the rows above).
KNOWN_NAMESPACES = frozenset(
    {
        "aten",
        "prim",
        "prims",
        "quantized",
        "_quantized",
        "quantization",
        "sparse",
        "onednn",
        "mkldnn",
        "mkldnn_prepacked",
        "mkl",
        "prepacked",
        "static_runtime",
        "profiler",
    }
)

_TORCHVISION = "nms roi_align roi_pool ps_roi_align ps_roi_pool deform_conv2d _cuda_version"
COMPUTES = frozenset(f"torchvision::{name}" for name in _TORCHVISION.split())
