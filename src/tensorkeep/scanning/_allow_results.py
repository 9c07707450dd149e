"""Allowlisted results of torch's functions: `torch.max(x, 0)` and its kin are named tuples.

Source: torch 2.13 `torch/return_types.py`, `torch/csrc/utils/structseq.cpp`; they are pickled as
CPython's `Objects/structseq.c` says: a call of the class with a tuple and an empty dictionary. A
test compares the names with torch's.
"""

from __future__ import annotations

from tensorkeep.scanning._allow_kinds import Entry, KindOf

NAMES_TEXT = """
_attr _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_moving_avg_obs_fq_helper
_linalg_det _linalg_det_out _linalg_eigh _linalg_eigh_out _linalg_slogdet _linalg_slogdet_out
_linalg_solve_ex _linalg_solve_ex_out _linalg_svd _linalg_svd_out _lu_with_info
_scaled_dot_product_cudnn_attention _scaled_dot_product_efficient_attention
_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu _unpack_dual
aminmax aminmax_out cummax cummax_out cummin cummin_out frexp frexp_out geqrf geqrf_out histogram
histogram_out histogramdd kthvalue kthvalue_out linalg_cholesky_ex linalg_cholesky_ex_out
linalg_eig linalg_eig_out linalg_eigh linalg_eigh_out linalg_inv_ex linalg_inv_ex_out
linalg_ldl_factor linalg_ldl_factor_ex linalg_ldl_factor_ex_out linalg_ldl_factor_out linalg_lstsq
linalg_lstsq_out linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_lu_factor_ex_out
linalg_lu_factor_out linalg_lu_out linalg_qr linalg_qr_out linalg_slogdet linalg_slogdet_out
linalg_solve_ex linalg_solve_ex_out linalg_svd linalg_svd_out lu_unpack lu_unpack_out max max_out
median median_out min min_out mode mode_out nanmedian nanmedian_out qr qr_out slogdet slogdet_out
sort sort_out svd svd_out topk topk_out triangular_solve triangular_solve_out
"""
_PARTS = frozenset({"tensor", "int", "none"})


def _result(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) != 2 or type(args[0]) is not tuple or type(args[1]) is not dict or args[1]:
        return False
    return all(kind(part) in _PARTS for part in args[0])


ENTRIES: tuple[Entry, ...] = tuple(
    Entry(
        "torch.return_types",
        name,
        "is a tuple of tensors of the file whose places have names",
        call=True,
        reference="plain-value",
        rule=_result,
        makes="named-tuple",
    )
    for name in NAMES_TEXT.split()
)
