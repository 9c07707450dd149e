"""Which rule an anomaly breaks, by its kind. A kind that is not here gets the caller's default."""

from __future__ import annotations

_KINDS: dict[str, str] = {
    "container/ambiguous": (
        "duplicate-member case-collision several-roots several-directories overlapping-members "
        "local-name-differs local-flags-differ local-method-differs local-size-differs "
        "local-checksum-differs patched-member descriptor-differs entry-count directory-shift "
        "unicode-path "
        "bad-header-checksum several-names pax-size-differs pax-global odd-number link-with-data "
        "link-member sparse-member unknown-member two-formats "
        "two-kinds "
        "duplicate-key tensor-in-two-parts storage-described-twice computed-offset-differs "
        "items-overlap"
    ),
    "container/bad-checksum": "bad-checksum bad-digest",
    "container/hidden-bytes": (
        "prefix-bytes suffix-bytes trailing-bytes unlisted-bytes bytes-after-pickle "
        "trailing-compressed-bytes directory-with-data comment-length comment-bytes "
        "hole-between-tensors"
    ),
    "container/hidden-pickle": "pickle-in-storage nested-pickle second-pickle",
    "container/path-traversal": "path-traversal absolute-path link-outside storage-key-traversal",
    "pickle/amplification": "memo-index",
    "container/amplification": "compressed-bomb ratio declared-size",
    "tensor/out-of-bounds": (
        "storage-out-of-bounds negative-stride negative-offset negative-size "
        "numel-larger-than-record index-out-of-bounds sparse-index-out-of-bounds "
        "shape-stride-mismatch chunk-out-of-bounds item-out-of-bounds "
        "sparse-shape-mismatch quantizer-out-of-bounds nested-out-of-bounds"
    ),
    "tensor/odd": (
        "storage-missing tensor-not-in-index overlapping-tensors chunks-overlap "
        "hole-between-chunks chunk-differs metadata-of-no-item sparse-not-coalesced"
    ),
    "pickle/persistent-id": "persistent-id",
}

RULE_OF: dict[str, str] = {kind: rule for rule, kinds in _KINDS.items() for kind in kinds.split()}


def rule_for(kind: str, default: str = "container/odd") -> str:
    """The rule that an anomaly of this kind breaks."""
    return RULE_OF.get(kind, default)
