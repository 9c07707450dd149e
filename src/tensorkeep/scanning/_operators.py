"""TorchScript's operators: which of them do more than compute, and whose are known.

Made by looking through every schema that torch 2.13 registers (`torch._C._jit_get_all_schemas`):
a name stands here if its schema takes a file, a host or a process group, if it hands out memory
that no tensor owns, or if it makes a tensor out of indices or sizes that it does not check and no
model that torch saves calls it. `_unsafe_index`, `_unsafe_masked_index`, `_unsafe_view` and
`unsafe_split` do check (on the CPU), and honest exported programs call them. Public
operators that check nothing either (`sparse_coo_tensor`, `ctc_loss`, `segment_reduce` told that its
lengths are right) may be in honest models: not here. UNCHECKED are those that crash a process when
they are called with bad indices (tried one by one) and that autograd or another operator calls,
never a forward. Those of torchvision are its operators that compute (0.28).
"""

from __future__ import annotations

_NETWORK = "sends data to other processes or waits for them"
_MEMORY = "reads or writes memory by an address or a size that the code chooses"
_INDICES = "believes indices that the file names, and so reaches memory outside the tensor"
_SIZES = "believes sizes and offsets that the file names, and so reaches memory outside the tensor"

HARMFUL: dict[str, str] = {
    "aten::save": "writes any file that the process may write",
    "aten::from_file": "maps any file that the process may read, and can create or change it",
    "aten::_sparse_coo_tensor_unsafe": _INDICES,
    "aten::_sparse_coo_tensor_with_dims_and_tensors": _INDICES,
    "aten::_sparse_compressed_tensor_unsafe": _INDICES,
    "aten::_sparse_csr_tensor_unsafe": _INDICES,
    "aten::_sparse_csc_tensor_unsafe": _INDICES,
    "aten::_sparse_bsr_tensor_unsafe": _INDICES,
    "aten::_sparse_bsc_tensor_unsafe": _INDICES,
    "aten::_nested_view_from_buffer": _SIZES,
    "aten::_nested_view_from_buffer_copy": _SIZES,
    "aten::_reshape_alias": _SIZES,
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

_BELIEVES = "checks none of the indices that it is given, and is called by torch itself alone"
_UNCHECKED_TEXT = (
    "_convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo _ctc_loss "
    "_ctc_loss_backward _embedding_bag_backward _embedding_bag_dense_backward "
    "_embedding_bag_per_sample_weights_backward _segment_reduce_backward "
    "max_pool2d_with_indices_backward max_pool3d_with_indices_backward "
    "adaptive_max_pool2d_backward adaptive_max_pool3d_backward nll_loss_backward "
    "nll_loss2d_backward"
)
UNCHECKED: dict[str, str] = {f"aten::{name}": _BELIEVES for name in _UNCHECKED_TEXT.split()}

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
