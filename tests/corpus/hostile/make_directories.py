"""Folders that attack whoever loads them: torch.distributed.checkpoint, written byte by byte.

python tests/corpus/hostile/make_directories.py needs the standard library only. What a scan must
find is written here by hand, from what `dcp.load` of torch 2.13 would do: it runs `.metadata`
with plain pickle, and every item that is no tensor with `torch.load(weights_only=False)`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from making import write_down  # noqa: E402
from tricks import (  # noqa: E402
    ARG,
    CALL,
    EVIL,
    OD,
    P2,
    WEIGHT,
    checkpoint,
    g,
    i,
    state_dict,
    storage,
    tensor,
    u,
)

DANGEROUS, SUSPICIOUS, UNKNOWN = "dangerous", "suspicious", "unknown"
PACKAGE = "torch.distributed.checkpoint.metadata"
DATA = "__0_0.distcp"
VALUE = checkpoint(P2 + b"K\x03.")
TENSOR = checkpoint(P2 + tensor() + b".")


def keep(name, kind, verdict, rules, files, link=None):
    """`files`: names to bytes, of the folder `step`; `link`: a name in it and where it leads."""
    folder = HERE / name
    if folder.exists():
        return print(f"kept as it is: {name}")
    (folder / "step").mkdir(parents=True)
    for file, data in files.items():
        (folder / "step" / file).write_bytes(data)
    if link:
        (folder / "step" / link[0]).symlink_to(link[1])
    expected = {"kind": kind, "verdict": verdict, "rules": rules.split(), "deep": False}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="ascii")
    return write_down(folder)


def made(name, module=PACKAGE, **fields):
    """An instance of a dataclass of torch's: NEWOBJ, and BUILD with its fields."""
    pairs = b"".join(u(key) + value + b"s" for key, value in fields.items())
    return g(module, name) + b")\x81}" + pairs + b"b"


def size(*numbers):
    return g("torch", "Size") + b"(" + b"".join(map(i, numbers)) + b"t\x85R"


def properties(dtype="float32"):
    layout = g("torch.serialization", "_get_layout") + u("torch.strided") + b"\x85R"
    encoding = g(PACKAGE, "_MEM_FORMAT_ENCODING") + b"K\x00\x85R"
    state = b"(" + g("torch", dtype) + layout + b"\x89" + encoding + b"\x89t"
    return g(PACKAGE, "TensorProperties") + b")\x81" + state + b"b"


def chunk(offset=(0,), sizes=(4,)):
    return made("ChunkStorageMetadata", offsets=size(*offset), sizes=size(*sizes))


def item(*chunks, shape=(4,), dtype="float32"):
    many = b"](" + b"".join(chunks or (chunk(),)) + b"e"
    return made(
        "TensorStorageMetadata", properties=properties(dtype), size=size(*shape), chunks=many
    )


BYTES = made("BytesStorageMetadata")


def index(name, *offset):
    where = {"offset": size(*offset)} if offset else {}
    return made("MetadataIndex", fqn=u(name), **where)


def info(offset, length, file=DATA):
    module = "torch.distributed.checkpoint.filesystem"
    return made("_StorageInfo", module, relative_path=u(file), offset=i(offset), length=i(length))


def table(pairs):
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def metadata(items, stored, **more):
    """`items`: names to what they are; `stored`: pairs of an index and a place."""
    listed = table((u(name), value) for name, value in items.items())
    fields = {"state_dict_metadata": listed, "storage_data": table(stored), **more}
    return P2 + made("Metadata", **fields) + b"."


def honest(items=None, stored=(), data=b"", extra=b"", **more):
    """A folder with one honest tensor `weight`; then `items` stored at `stored`, their `data`."""
    items = {"weight": item(), **(items or {})}
    places = [(index("weight", 0), info(0, len(TENSOR))), *stored]
    return {".metadata": metadata(items, places, **more) + extra, DATA: TENSOR + data}


def one(name, value):
    """One more item that is no tensor, right behind the honest tensor."""
    return honest({name: BYTES}, [(index(name), info(len(TENSOR), len(value)))], value)


def programs():
    keep("dcp_metadata_runs_code", "F", DANGEROUS, "pickle/dangerous-call", {
        ".metadata": P2 + CALL + b"0" + honest()[".metadata"][2:], DATA: TENSOR,
    })  # fmt: skip
    keep("dcp_planner_data_runs_code", "F", DANGEROUS, "pickle/dangerous-call",
         honest(planner_data=CALL))  # fmt: skip
    keep("dcp_metadata_is_code_alone", "F", DANGEROUS, "pickle/dangerous-call",
         {".metadata": EVIL, DATA: TENSOR})  # fmt: skip
    keep("dcp_second_pickle_in_metadata", "F", SUSPICIOUS, "container/hidden-bytes",
         honest(extra=EVIL))  # fmt: skip
    keep("dcp_setstate_injected", "F", SUSPICIOUS, "pickle/shadowing-key", honest(
        storage_meta=made("StorageMeta", **{"__setstate__": g("builtins", "len")}),
    ))  # fmt: skip
    keep("dcp_value_runs_code", "F", DANGEROUS, "pickle/dangerous-call",
         one("epoch", checkpoint(EVIL)))  # fmt: skip
    keep("dcp_value_is_a_raw_pickle", "F", DANGEROUS, "pickle/dangerous-call",
         one("epoch", EVIL))  # fmt: skip
    keep("dcp_chunk_runs_code", "F", DANGEROUS, "pickle/dangerous-call", honest(
        {"other": item()}, [(index("other", 0), info(len(TENSOR), len(checkpoint(EVIL))))],
        checkpoint(EVIL),
    ))  # fmt: skip
    evil = checkpoint(state_dict(CALL))
    keep("dcp_item_that_no_name_lists", "F", DANGEROUS, "pickle/dangerous-call tensor/odd", honest(
        None, [(index("gone"), info(len(TENSOR), len(evil)))], evil,
    ))  # fmt: skip
    keep("dcp_old_data_file_runs_code", "F", DANGEROUS, "pickle/dangerous-call",
         honest() | {"__7_0.distcp": checkpoint(EVIL)})  # fmt: skip
    keep("dcp_file_of_another_kind_runs_code", "F", DANGEROUS, "pickle/dangerous-call",
         honest() | {"rng_state.pth": checkpoint(EVIL)})  # fmt: skip
    keep("zero_one_rank_runs_code", "F", DANGEROUS, "pickle/dangerous-call", {
        "mp_rank_00_model_states.pt": checkpoint(state_dict()),
        "zero_pp_rank_0_mp_rank_00_optim_states.pt": checkpoint(state_dict()),
        "zero_pp_rank_1_mp_rank_00_optim_states.pt": checkpoint(EVIL),
    })  # fmt: skip
    keep("dcp_no_metadata_first_item_runs_code", "F", DANGEROUS, "pickle/dangerous-call",
         {DATA: checkpoint(EVIL) + TENSOR})  # fmt: skip
    keep("dcp_no_metadata_middle_item_runs_code", "F", DANGEROUS, "pickle/dangerous-call",
         {DATA: VALUE + checkpoint(EVIL) + TENSOR})  # fmt: skip


def places():
    hidden = checkpoint(EVIL)
    # The place ends behind two archives: a zip reader takes the last one, a stream the first.
    both = VALUE + hidden
    keep("dcp_length_over_two_archives", "F", DANGEROUS, "pickle/dangerous-call",
         one("epoch", both))  # fmt: skip
    keep("dcp_length_hides_an_archive", "F", SUSPICIOUS, "container/hidden-bytes", honest(
        {"epoch": BYTES}, [(index("epoch"), info(len(TENSOR) + len(hidden), len(VALUE)))],
        hidden + VALUE,
    ))  # fmt: skip
    keep("dcp_two_items_at_one_place", "F", SUSPICIOUS, "container/ambiguous", honest(
        {"other": item()}, [(index("other", 0), info(0, len(TENSOR)))],
    ))  # fmt: skip
    twice = [(index("epoch"), info(len(TENSOR), len(VALUE)))]
    twice += [(index("epoch"), info(len(TENSOR) + len(VALUE), len(VALUE)))]
    keep("dcp_one_item_at_two_places", "F", SUSPICIOUS, "container/ambiguous",
         honest({"epoch": BYTES}, twice, VALUE + VALUE))  # fmt: skip
    keep("dcp_item_beyond_the_file", "F", DANGEROUS, "tensor/out-of-bounds", honest(
        {"other": item()}, [(index("other", 0), info(1 << 40, len(TENSOR)))],
    ))  # fmt: skip
    keep("dcp_negative_place", "F", UNKNOWN, "read/damaged", honest(
        {"other": item()}, [(index("other", 0), info(-512, len(TENSOR)))],
    ))  # fmt: skip


def tensors():
    def stored(*offsets):
        return [(index("other", at), info(0, len(TENSOR))) for at in offsets]

    keep("dcp_chunk_out_of_bounds", "G", DANGEROUS, "tensor/out-of-bounds", honest(
        {"other": item(chunk((1000,)))}, stored(1000),
    ))  # fmt: skip
    keep("dcp_chunk_at_a_negative_place", "G", DANGEROUS, "tensor/out-of-bounds", honest(
        {"other": item(chunk((-2,)))}, stored(-2),
    ))  # fmt: skip
    keep("dcp_chunks_overlap", "G", SUSPICIOUS, "tensor/odd", honest(
        {"other": item(chunk((0,)), chunk((2,)), shape=(6,))}, stored(0, 2),
    ))  # fmt: skip
    keep("dcp_hole_between_chunks", "G", SUSPICIOUS, "tensor/odd", honest(
        {"other": item(chunk((0,)), chunk((6,)), shape=(10,))}, stored(0, 6),
    ))  # fmt: skip
    keep("dcp_huge_size", "I", DANGEROUS, "container/amplification", honest(
        {"other": item(shape=(1 << 31, 1 << 31, 1 << 31))}, stored(0),
    ))  # fmt: skip
    keep("dcp_negative_size", "G", DANGEROUS, "tensor/out-of-bounds", honest(
        {"other": item(shape=(-4,))}, stored(0),
    ))  # fmt: skip
    keep("dcp_chunk_of_another_dtype", "G", SUSPICIOUS, "tensor/odd", honest(
        {"other": item(dtype="float64")}, stored(0),
    ))  # fmt: skip
    wide = P2 + g("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(numel=4) + i(0)
    wide += b"(" + i(1 << 20) + b"t(" + i(1) + b"t\x89" + OD + b"tR."
    big = checkpoint(wide)
    keep("dcp_chunk_past_its_storage", "G", DANGEROUS, "tensor/out-of-bounds", honest(
        {"other": item(chunk((0,), (1 << 20,)), shape=(1 << 20,))},
        [(index("other", 0), info(len(TENSOR), len(big)))], big,
    ))  # fmt: skip


def paths():
    def leading(file):
        return honest({"other": item()}, [(index("other", 0), info(0, len(TENSOR), file))])

    rules = "container/path-traversal"
    keep("dcp_path_up", "J", DANGEROUS, rules, leading("../../system/model.pth"))
    keep("dcp_path_absolute", "J", DANGEROUS, rules, leading("/etc/passwd"))
    keep("dcp_path_of_windows", "J", DANGEROUS, rules, leading("..\\..\\secret.distcp"))
    keep("dcp_path_with_a_nul", "J", DANGEROUS, rules, leading("__0_0.distcp\0.pth"))
    keep("dcp_path_is_the_folder", "J", DANGEROUS, rules, leading("."))
    keep("dcp_path_is_a_link", "J", UNKNOWN, "read/not-a-checkpoint", leading("linked.distcp"),
         link=("linked.distcp", "/etc/passwd"))  # fmt: skip


def floods():
    # One list of chunks under thousands of names: each would be walked again for each of them.
    chunks = b"](" + chunk() + b"q\x01" + b"h\x01" * 1999 + b"e"
    first = made("TensorStorageMetadata", properties=properties(), size=size(4), chunks=chunks)
    listed = u("0") + first + b"q\x02"
    listed += b"".join(u(str(n)) + b"h\x02" for n in range(1, 2000))
    data = P2 + made(
        "Metadata", state_dict_metadata=b"}(" + listed + b"u", storage_data=b"}"
    ) + b"."  # fmt: skip
    keep("dcp_chunks_shared_by_many_names", "I", DANGEROUS, "container/amplification", {
        ".metadata": data, DATA: TENSOR,
    })  # fmt: skip
    keep("dcp_planner_calls_by_name", "F", DANGEROUS, "pickle/dangerous-import",
         honest(planner_data=table([(u("weight"), g("os", "system"))])))  # fmt: skip
    keep("dcp_argument_is_a_call", "F", DANGEROUS, "pickle/dangerous-call", honest(
        version=g("os", "system") + ARG + b"R",
    ))  # fmt: skip


if __name__ == "__main__":
    for make in (programs, places, tensors, paths, floods):
        make()
    assert len(WEIGHT) == 16
