"""Files that attack whoever loads them; their payloads are inert.

python tests/corpus/hostile/make.py needs the standard library only. What a scan must find is
written here by hand, from what a loader would do, and not taken from what the scan says.
The letters are kinds of attack: B names, C opcodes, D ends of streams, E zip, G memory after the
load, H safetensors, I denial of service, J paths.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from making import write_down  # noqa: E402
from tricks import (  # noqa: E402
    ARG,
    CALL,
    EVIL,
    HONEST,
    NAMESPACE,
    OD,
    P2,
    P4,
    SYSTEM,
    WEIGHT,
    Member,
    archive,
    checkpoint,
    entry,
    g,
    header,
    i,
    safetensors,
    sg,
    state_dict,
    storage,
    tensor,
    u,
)

DANGEROUS, SUSPICIOUS, UNKNOWN = "dangerous", "suspicious", "unknown"


def keep(name, kind, verdict, rules, files, *, deep=False):
    """`files`: bytes of model.pth or model.safetensors, or names to bytes."""
    folder = HERE / name
    if folder.exists():
        return print(f"kept as it is: {name}")
    if isinstance(files, bytes):
        suffix = "pth" if files[:2] == b"PK" or files[:1] == b"\x80" else "safetensors"
        files = {f"model.{suffix}": files}
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    expected = {"kind": kind, "verdict": verdict, "rules": rules.split(), "deep": deep}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="ascii")
    return write_down(folder)


def runs(name, kind, pickle, rules="pickle/dangerous-call"):
    """A pickle that runs code when it is loaded."""
    keep(name, kind, DANGEROUS, rules, checkpoint(pickle))


def names():
    runs("system", "B", state_dict(CALL))
    runs("posix_alias", "B", state_dict(sg("posix", "system") + ARG + b"R", proto=P4))
    runs(
        "stack_global_through_module",
        "B",
        state_dict(sg("torch.nn.parallel.distributed", "os.getpid") + b")R", proto=P4),
    )
    runs(
        "getattr_to_system",
        "B",
        state_dict(
            g("__builtin__", "getattr")
            + (g("torch.serialization", "os") + u("system") + b"\x86R")
            + ARG
            + b"R"
        ),
        "pickle/dangerous-import",
    )
    nested = g("__builtin__", "getattr") + g("models", "Net") + u("Block") + b"\x86R)\x81"
    keep(
        "getattr_at_protocol_2",
        "B",
        SUSPICIOUS,
        "pickle/attribute-lookup",
        checkpoint(state_dict(nested)),
    )
    runs("unpickler_inside", "B", state_dict(g("_pickle", "loads") + b"C\x04\x80\x02N.\x85R"))


def opcodes():
    runs("inst", "C", state_dict(b"(" + u("echo tensorkeep") + b"ios\nsystem\n"))
    runs("obj_then_pop", "C", state_dict(b"(" + SYSTEM + u("echo tensorkeep") + b"o0N"))
    runs("newobj_ex", "C", state_dict(sg("subprocess", "Popen") + ARG + b"}\x92", proto=P4))
    memo = u("os") + b"\x940" + u("system") + b"\x940h\x00h\x01\x93" + ARG + b"R"
    runs("stack_global_from_memo", "C", P4 + memo + b".")
    swapped = u("json") + b"q\x050" + u("os") + b"q\x050" + b"h\x05" + u("system") + b"\x93"
    runs("memo_overwritten", "C", state_dict(swapped + ARG + b"R", proto=P4))
    computed = g("models", "name") + b")R" + u("system") + b"\x93" + ARG + b"R"
    runs("stack_global_computed", "C", state_dict(computed, proto=P4))
    runs("protocol_0", "C", b"cos\nsystem\n(S'echo tensorkeep'\ntR.")
    defaults = u("__defaults__") + b"\x88\x85s"
    relu = g("torch.nn.functional", "relu")
    slots = relu + b"N}" + defaults + b"\x86b"
    runs("slot_state_on_relu", "C", state_dict(slots), "pickle/changes-global")
    runs("state_on_relu", "C", state_dict(relu + b"}" + defaults + b"b"), "pickle/changes-global")
    runs(
        "append_to_sys_path",
        "C",
        state_dict(g("sys", "path") + u("/tmp") + b"a"),
        "pickle/changes-global pickle/dangerous-import",
    )
    # The instance gets a method of the file's choosing, which the next opcode calls.
    for method, then in {
        "extend": b"(K\x01e",
        "add": b"(K\x01\x90",
        "__setstate__": b"K\x01b",
    }.items():
        stored = NAMESPACE + b"}" + u(method) + g("builtins", "int") + b"sb" + then
        keep(
            f"injected_{method.strip('_')}",
            "C",
            SUSPICIOUS,
            "pickle/shadowing-key",
            checkpoint(state_dict(stored, proto=P4)),
        )
    odd = {
        "extension_registry": ("pickle/extension", b"\x82\x01)R"),
        "persistent_id_of_a_call": ("pickle/persistent-id", OD + b"Q"),
        "call_of_a_result": ("pickle/call-of-value", OD + b")R"),
        "slot_state_on_namespace": ("pickle/slot-state", NAMESPACE + b"N}" + u("x") + b"Ns\x86b"),
    }
    for name, (rule, value) in odd.items():
        keep(name, "C", SUSPICIOUS, rule, checkpoint(state_dict(value)))


def streams():
    keep(
        "pickle_after_stop",
        "D",
        DANGEROUS,
        "container/hidden-bytes pickle/dangerous-call",
        checkpoint(HONEST + EVIL),
    )
    runs(
        "code_before_broken_opcode", "D", P2 + CALL + b"\xff", "pickle/dangerous-call read/damaged"
    )
    runs("no_stop", "D", P2 + CALL, "pickle/dangerous-call read/damaged")
    keep(
        "junk_before_payload",
        "D",
        DANGEROUS,
        "pickle/dangerous-call",
        checkpoint(P2 + b"N0" * 300_000 + CALL + b".", deflate=True),
    )
    # torch.load takes it for a legacy file and runs the pickle; a zip reader finds an honest one.
    keep(
        "pickle_and_zip",
        "D",
        DANGEROUS,
        "pickle/dangerous-call",
        {"model.pth": EVIL + checkpoint(HONEST)},
    )


def zips():
    ambiguous = "container/ambiguous"
    evil = Member("archive/data.pkl", EVIL)
    both = f"{ambiguous} pickle/dangerous-call"
    keep("duplicate_data_pkl", "E", DANGEROUS, both, checkpoint(HONEST, evil))
    # torch takes the honest one here, and Python's zipfile the other.
    first = archive(
        [
            Member("archive/version", b"3\n"),
            Member("archive/data/0", WEIGHT),
            Member("archive/data.pkl", HONEST),
            evil,
        ]
    )
    keep("duplicate_taken_by_zipfile", "E", DANGEROUS, both, first)
    twice = Member("archive/data/0", EVIL)
    keep("duplicate_storage", "E", DANGEROUS, both, checkpoint(HONEST, twice))
    upper = Member("archive/DATA.PKL", EVIL)
    keep("case_collision", "E", DANGEROUS, both, checkpoint(HONEST, upper))
    other = Member("other/data.pkl", EVIL)
    keep("second_root", "E", DANGEROUS, both, checkpoint(HONEST, other))
    keep(
        "bad_checksum",
        "E",
        SUSPICIOUS,
        "container/bad-checksum",
        checkpoint(HONEST, crc=0xDEADBEEF),
    )
    keep(
        "bad_checksum_and_code",
        "E",
        DANGEROUS,
        "container/bad-checksum pickle/dangerous-call",
        checkpoint(state_dict(CALL), crc=0xDEADBEEF),
    )
    local = Member("archive/notes", b"n", local_name="archive/evil.")
    keep("local_name_differs", "E", SUSPICIOUS, ambiguous, checkpoint(HONEST, local))
    keep(
        "encrypted_flag",
        "E",
        UNKNOWN,
        "read/unsupported",
        archive([Member("archive/data.pkl", HONEST, flags=1), Member("archive/version", b"3\n")]),
    )
    keep(
        "two_directories",
        "E",
        SUSPICIOUS,
        "container/hidden-bytes",
        checkpoint(HONEST, directories=2),
    )
    hidden = Member("archive/hidden.pkl", EVIL, listed=False)
    bytes_ = "container/hidden-bytes"
    keep("unlisted_behind_storage", "E", SUSPICIOUS, bytes_, checkpoint(HONEST, hidden), deep=True)
    note = Member("archive/note", b"n")
    keep("unlisted_member", "E", SUSPICIOUS, bytes_, checkpoint(HONEST, note, hidden))
    keep("suffix_bytes", "E", SUSPICIOUS, "container/hidden-bytes", checkpoint(HONEST, suffix=EVIL))
    said = checkpoint(HONEST, comment=EVIL)
    keep("pickle_in_archive_comment", "E", SUSPICIOUS, "container/hidden-bytes", said)
    keep(
        "bytes_before_directory",
        "E",
        SUSPICIOUS,
        "container/hidden-bytes",
        checkpoint(HONEST, between=EVIL),
    )
    # Two entries of the directory for the same bytes.
    overlap = Member("archive/extra", HONEST, at=0)
    keep("overlapping_members", "E", SUSPICIOUS, ambiguous, checkpoint(HONEST, overlap))
    keep(
        "pickle_in_storage",
        "E",
        DANGEROUS,
        "container/hidden-pickle pickle/dangerous-call",
        checkpoint(HONEST, weight=EVIL),
        deep=True,
    )
    keep(
        "extra_pickle",
        "E",
        DANGEROUS,
        "container/hidden-pickle pickle/dangerous-call",
        checkpoint(HONEST, Member("archive/optimizer.pkl", EVIL)),
    )


def memory():
    bounds = "tensor/out-of-bounds"
    bent = {
        "numel_larger_than_record": tensor("0", 1 << 40, shape=(1 << 40,)),
        "shape_past_storage": tensor(shape=(1 << 20,)),
        "negative_stride": tensor(offset=3, stride=(-1,)),
        "negative_offset": tensor(offset=-8),
        "huge_stride": tensor(shape=(2,), stride=((1 << 62) - 1,)),
        "negative_shape": tensor(shape=(-4,)),
    }
    for name, value in bent.items():
        keep(name, "G", DANGEROUS, bounds, checkpoint(P2 + b"}" + u("bent") + value + b"s."))
    keep(
        "setitem_on_storage",
        "G",
        DANGEROUS,
        "pickle/writes-storage",
        checkpoint(state_dict(storage() + i(-8) + b"K\x01s")),
    )


def headers():
    keep(
        "overlapping_tensors",
        "H",
        SUSPICIOUS,
        "tensor/odd",
        safetensors(weight=entry(0, 16), bent=entry(8, 16, (2,))),
    )
    keep(
        "hole_between_tensors",
        "H",
        SUSPICIOUS,
        "container/hidden-bytes",
        safetensors(
            WEIGHT + EVIL + WEIGHT, weight=entry(0, 16), b=entry(16 + len(EVIL), 32 + len(EVIL))
        ),
    )
    text = json.dumps(entry(0, 16))
    other = json.dumps(entry(0, 16, (2, 2)))
    keep(
        "duplicate_key",
        "H",
        SUSPICIOUS,
        "container/ambiguous",
        header(f'{{"weight":{text},"weight":{other}}}'),
    )
    keep(
        "trailing_data",
        "H",
        SUSPICIOUS,
        "container/hidden-bytes",
        safetensors(WEIGHT + EVIL, weight=entry(0, 16)),
    )
    damaged = {
        "past_the_end": safetensors(bent=entry(0, 1 << 40, (1 << 38,))),
        "negative_shape_in_header": safetensors(bent=entry(0, 16, (-4,))),
        "shape_overflow": safetensors(bent=entry(0, 16, (1 << 33, 1 << 33))),
        "backwards_offsets": safetensors(bent=entry(16, 0)),
        "deep_json": header('{"a":' + "[" * 8_000 + "]" * 8_000 + "}"),
    }
    for name, data in damaged.items():
        keep(name, "H", UNKNOWN, "read/damaged", data)
    more = {
        "elements_fewer_than_bytes": safetensors(weight=entry(0, 16, (3,))),
        "metadata_of_numbers": header(f'{{"__metadata__":{{"epoch":1}},"weight":{text}}}'),
    }
    for name, data in more.items():
        keep(name, "H", UNKNOWN, "read/damaged", data)
    invented = safetensors(weight=entry(0, 16, dtype="F31"))
    keep("dtype_that_is_none", "H", UNKNOWN, "read/unsupported", invented)
    keep("header_bomb", "H", UNKNOWN, "read/not-a-checkpoint", header('{"a', length=(1 << 62)))
    keep("header_of_100_mb", "H", UNKNOWN, "read/damaged", header('{"a', length=99_999_999))


def service():
    keep(
        "compressed_bomb",
        "I",
        DANGEROUS,
        "container/amplification",
        checkpoint(P2 + b"N0" * 12_000_000 + b"N.", deflate=True),
    )
    nesting = P2 + b"}" + u("deep") + b")" + b"\x85" * 500_000 + b"s."
    keep("deep_nesting", "I", UNKNOWN, "", checkpoint(nesting, deflate=True))
    keep(
        "deep_key",
        "I",
        UNKNOWN,
        "",
        checkpoint(P2 + b"})" + b"\x85" * 500_000 + b"Ns.", deflate=True),
    )
    keep(
        "memo_bomb",
        "I",
        DANGEROUS,
        "pickle/amplification",
        checkpoint(P2 + b"Nr" + struct.pack("<I", 2**31) + b"."),
    )
    laughs = b"]" + b"".join(b"q" + bytes([n]) + b"0](h" + bytes([n]) + b"2e" for n in range(60))
    keep(
        "exponential_expansion",
        "I",
        DANGEROUS,
        "container/amplification",
        checkpoint(P2 + laughs + b"."),
    )
    lengths = {
        "bytes_of_exabytes": b"\x8e" + struct.pack("<Q", 1 << 62),
        "bytearray_of_exabytes": b"\x96" + struct.pack("<Q", 1 << 62),
        "frame_of_exabytes": b"\x95" + struct.pack("<Q", 1 << 62),
        "long_of_gigabytes": b"\x8b" + struct.pack("<i", (1 << 31) - 1),
    }
    for name, opcode in lengths.items():
        keep(name, "I", UNKNOWN, "read/damaged", checkpoint(b"\x80\x05" + opcode + b"N."))
    digits = b"I" + b"9" * 2_000_000 + b"\n."
    keep("integer_in_text", "I", UNKNOWN, "", checkpoint(digits, deflate=True))
    fill = g("builtins", "bytearray") + i(2_000_000_000) + b"\x85R"
    keep("huge_bytearray", "I", DANGEROUS, "pickle/amplification", checkpoint(state_dict(fill)))


def paths():
    traversal = "container/path-traversal"
    keep(
        "storage_key_traversal",
        "J",
        DANGEROUS,
        traversal,
        checkpoint(P2 + b"}" + u("bent") + tensor("../../../etc/passwd") + b"s."),
    )
    climbs = Member("archive/../../../tmp/evil", b"x")
    keep("member_traversal", "J", DANGEROUS, traversal, checkpoint(HONEST, climbs))
    absolute = Member("/etc/cron.d/evil", b"x")
    keep("absolute_member", "J", DANGEROUS, traversal, checkpoint(HONEST, absolute))
    link = Member("archive/link", b"/etc/passwd", external=0o120777 << 16)
    keep("symbolic_link", "J", DANGEROUS, traversal, checkpoint(HONEST, link))
    index = {"metadata": {}, "weight_map": {"weight": "../../../../../etc/passwd"}}
    text = json.dumps(index).encode()
    keep("index_traversal", "J", UNKNOWN, "", {"model.safetensors.index.json": text})


if __name__ == "__main__":
    for group in (names, opcodes, streams, zips, memory, headers, service, paths):
        group()
