"""What holds for any bytes that are given to the verbs. Imported under atheris' instrumentation."""

from __future__ import annotations

import json

import tensorkeep as tk
from tensorkeep import formats
from tensorkeep.scanning.examining import scan_blob
from tensorkeep.stores.memory import MemoryBlob

# Small inputs need no large limits; what they bound is amplification, and must hold at any value.
LIMITS = tk.Limits(
    max_pickle_bytes=256 << 10,
    max_stack=100_000,
    max_memo=100_000,
    max_expansion=20_000,
    max_entries=10_000,
)
_LARGEST = 1 << 20  # bytes of a tensor that is read
_MOST = 50  # tensors that are read
_ORDER = ("safe", "suspicious", "unknown", "dangerous")


def verdict_of(data: bytes, *, deep: bool = True) -> str:
    """Scan `data`: it raises nothing, says the same twice, and fits into JSON."""
    first = _scanned(data, deep)
    assert _scanned(data, deep) == first, "two scans differ"
    return first["verdict"]


def _scanned(data: bytes, deep: bool) -> dict:
    report = scan_blob(MemoryBlob(data), deep, LIMITS).to_dict()
    json.dumps(report, allow_nan=False).encode("ascii")
    for finding in report["findings"]:
        assert finding["rule"] in tk.scanning.rules.RULES, finding["rule"]
        assert "\n" not in finding["what"], "a finding of two lines"
        assert len(finding["what"]) < 5_000, "a finding without end"
    return report


def every_verb(data: bytes) -> str:
    """The verdict; `inspect`, `verify` and reading give an answer or one of our errors."""
    quick, deep = verdict_of(data, deep=False), verdict_of(data)
    assert _ORDER.index(deep) >= _ORDER.index(quick), (quick, deep)
    for verb in (_inspected, _verified, _read):
        try:
            verb(data)
        except tk.TensorkeepError as error:
            assert "\n" not in str(error), "an error of two lines"
    return deep


def _inspected(data: bytes) -> None:
    json.dumps(tk.inspect(data, limits=LIMITS).to_dict(), allow_nan=False)


def _verified(data: bytes) -> None:
    json.dumps(tk.verify(data, limits=LIMITS).to_dict(), allow_nan=False)


def _read(data: bytes) -> None:
    for record in tensors_of(data).values():
        len(record)


def tensors_of(data: bytes) -> dict[str, bytes]:
    """The bytes of the tensors that are small, each as long as it says."""
    found = {}
    with tk.open(data, limits=LIMITS) as ckpt:
        for name in list(ckpt)[:_MOST]:
            ref = ckpt[name]
            if ref.nbytes <= _LARGEST:
                found[name] = ref.read()
                assert len(found[name]) == ref.nbytes, name
    return found


def format_of(data: bytes) -> str:
    """The format that the first bytes announce, or ""."""
    known = formats.identify(MemoryBlob(data))
    return known.NAME if known else ""
