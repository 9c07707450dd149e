"""Files without a directory that attack whoever loads them; their payloads are inert.

python tests/corpus/hostile/make_streams.py needs the standard library only. Kinds: F other
containers (torch before 1.6 and 0.1.10, npy, joblib, compressed streams), I denial of service.
What a scan must find is written here by hand, from what a loader would do.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import sys
import tarfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from make import DANGEROUS, SUSPICIOUS, UNKNOWN, keep  # noqa: E402
from tricks import ARG, CALL, EVIL, P2, P4, SYSTEM, WEIGHT, g, i, tensor, u  # noqa: E402

MAGIC = P2 + b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
VERSION = P2 + b"M\xe9\x03."
SYSTEM_INFO = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
KEYS = pickle.dumps(["0"], 2)
# A storage's id has a sixth part here: the stretch of another storage that it is.
TENSOR = tensor().replace(i(4) + b"tQ", i(4) + b"NtQ", 1)
OBJECT = P2 + b"}" + u("weight") + TENSOR + b"s."
STORAGE = struct.pack("<q", 4) + WEIGHT
HONEST_PICKLE = pickle.dumps({"epoch": 3}, 2)
JUNK = bytes(range(0xFF, 0x7F, -1)) * 3
CALL_0 = CALL + b"0"  # called, and what it gives is thrown away


def legacy(magic=MAGIC, version=VERSION, info=SYSTEM_INFO, root=OBJECT, keys=KEYS, rest=STORAGE):
    return magic + version + info + root + keys + rest


def early(program):
    """The program with a call before its first value."""
    return program[:2] + CALL_0 + program[2:]


def f(name, files, verdict=DANGEROUS, rules="pickle/dangerous-call"):
    keep(name, "F", verdict, rules, files if isinstance(files, dict) else {"model.pth": files})


def old_torch():
    f("legacy_call_before_magic", legacy(magic=early(MAGIC)))
    f("legacy_magic_is_a_call", legacy(magic=EVIL))
    number = g("builtins", "int") + u(str(0x1950A86A20F9469CFC6C)) + b"\x85R"
    f("legacy_magic_computed", legacy(magic=P2 + number + b"."), SUSPICIOUS, "")
    f("legacy_call_in_version", legacy(version=early(VERSION)))
    f("legacy_call_in_system_info", legacy(info=early(SYSTEM_INFO)))
    f("legacy_call_in_object", legacy(root=early(OBJECT)))
    f("legacy_call_in_keys", legacy(keys=early(KEYS)))
    f("legacy_code_in_protocol_0", legacy(info=b"cos\nsystem\n(S'echo tensorkeep'\ntR."))
    hidden = "container/hidden-bytes container/hidden-pickle pickle/dangerous-call"
    f("legacy_bytes_behind", legacy() + EVIL, DANGEROUS, "container/hidden-bytes")
    f("legacy_pickle_behind_junk", legacy() + JUNK + EVIL + JUNK, DANGEROUS, hidden)
    decoy = P2 + b"B" + struct.pack("<i", len(EVIL) + 8) + EVIL + b"\0" * 8 + b"0N."
    f("legacy_pickle_in_a_decoy", legacy() + JUNK + decoy, DANGEROUS, hidden)
    old = b"\xff(S'echo tensorkeep'\nios\nsystem\n."
    f("legacy_inst_behind", legacy() + JUNK + old, DANGEROUS, hidden)
    f("pickle_behind_junk", {"model.pkl": HONEST_PICKLE + JUNK + EVIL}, DANGEROUS, hidden)
    broken = EVIL[:-1] + b"\xff"
    f("broken_pickle_behind_junk", {"model.pkl": HONEST_PICKLE + JUNK + broken}, DANGEROUS, hidden)
    view = (b"(" + u("v") + i(2) + i(9) + b"tt").join(OBJECT.split(b"Nt", 1)[:2])
    keep("legacy_view_outside", "G", DANGEROUS, "tensor/out-of-bounds", {
        "model.pth": legacy(root=view)
    })  # fmt: skip
    module = b"(" + u("module") + SYSTEM + u("a.py") + u("source") + b"tQ" + ARG + b"R"
    f("legacy_class_by_persistent_id", legacy(root=P2 + module + b"."))


def tarred(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def members(**changed):
    kind = P2 + b"(" + i(7) + u("cpu") + g("torch", "FloatStorage") + b"t."
    known = {
        "sys_info": SYSTEM_INFO,
        "pickle": P2 + b"}" + u("weight") + u("1") + b"Qs.",
        "tensors": P2 + i(1) + b"." + P2 + b"(" + i(1) + i(7) + g("torch", "FloatTensor") + b"t."
        + struct.pack("<i4x3q", 1, 4, 1, 0),
        "storages": P2 + i(1) + b"." + kind + STORAGE + P2 + b"].",
    }  # fmt: skip
    return (known | changed).items()


def old_tars():
    honest = dict(members())
    for name in ("storages", "tensors", "pickle", "sys_info"):
        f(f"tar_call_in_{name}", tarred(members(**{name: early(honest[name])})))
    inner = honest["storages"].replace(P2 + b"].", P2 + CALL_0 + b"].")
    f("tar_call_in_views", tarred(members(storages=inner)))
    short = {name: data for name, data in members(storages=inner) if name != "tensors"}
    f("tar_without_tensors", tarred(short.items()))
    behind = honest["pickle"] + JUNK + EVIL
    hidden = "container/hidden-bytes container/hidden-pickle pickle/dangerous-call"
    f("tar_pickle_behind_junk", tarred(members(pickle=behind)), DANGEROUS, hidden)
    twice = tarred([*honest.items(), ("pickle", early(honest["pickle"]))])
    f("tar_second_pickle_member", twice, DANGEROUS, "pickle/dangerous-call container/ambiguous")


def npy(descr, data, shape=(1,)):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


def wrapper(shape, dtype, extra=b"", state=b""):
    """joblib's stand-in for an array, and its state."""
    names = [("subclass", g("numpy", "ndarray")), ("shape", shape), ("order", u("C"))]
    names += [("dtype", dtype), ("allow_mmap", b"\x89"), ("numpy_array_alignment_bytes", i(16))]
    pairs = b"".join(u(name) + value for name, value in names) + extra
    made = g("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81"
    return made + b"}(" + pairs + b"ub" + state


def dtype(code, flags=0, order="<"):
    made = g("numpy", "dtype") + u(code) + b"\x89\x88\x87R"
    parts = i(3) + u(order) + b"NNN" + i(-1) + i(-1) + i(flags)
    return made + b"(" + parts + b"tb"


def numpy_files():
    f("npy_objects", {"array.npy": npy("'|O'", EVIL)})
    f("npy_record_of_objects", {"array.npy": npy("[('a', '<i4'), ('b', '|O')]", EVIL)})
    f("npy_type_in_words", {"array.npy": npy("'i4,O'", EVIL)})
    f("npy_not_named_npy", {"model.pth": npy("'|O'", EVIL)})
    padding = b"\x01\xff"
    array = wrapper(i(2) + b"\x85", dtype("i4")) + padding + WEIGHT[:8]
    f("joblib_call_after_array", {"model.joblib": P2 + b"]" + array + b"a" + CALL + b"a."})
    objects = wrapper(i(1) + b"\x85", dtype("O8", 63, "|")) + EVIL
    f("joblib_array_of_objects", {"model.joblib": P2 + b"]" + objects + b"a."})
    read = wrapper(i(1) + b"\x85", dtype("i4"), u("read") + SYSTEM) + padding + WEIGHT[:4]
    f(
        "joblib_read_replaced",
        {"model.joblib": P2 + read + b"."},
        DANGEROUS,
        "pickle/dangerous-import",
    )
    # The unpickler takes a frame whole: the array lies behind it, and so do opcodes.
    inside = wrapper(i(2) + b"\x85", dtype("i4")) + b"0]"
    framed = (
        P4 + b"\x95" + struct.pack("<Q", len(inside)) + inside + padding + WEIGHT[:8] + CALL + b"a."
    )
    f("joblib_array_behind_its_frame", {"model.joblib": framed})
    f("joblib_zlib", {"model.joblib": zlib.compress(P2 + b"]" + array + b"a" + CALL + b"a.")})


def others():
    f("gzip_pickle", {"model.pkl.gz": gzip.compress(EVIL, mtime=0)})
    two = gzip.compress(P2 + b"N.", mtime=0) + gzip.compress(EVIL, mtime=0)
    f("gzip_second_member", {"model.pkl.gz": two})
    f("bzip2_legacy", {"model.pth": bz2.compress(legacy(keys=early(KEYS)))})
    f("xz_pickle", {"model.bin": lzma.compress(EVIL)})
    f("lzma_pickle", {"model.bin": lzma.compress(EVIL, lzma.FORMAT_ALONE)})
    f("gzip_in_gzip", {"model.gz": gzip.compress(gzip.compress(EVIL, mtime=0), mtime=0)})
    text = b"cos\nsystem\n(S'echo tensorkeep'\ntR."
    f("protocol_0_named_txt", {"notes.txt": text})
    f("import_only", {"model.pkl": b"cos\nsystem\n."}, DANGEROUS, "pickle/dangerous-import")
    f("pickle_named_safetensors", {"model.safetensors": EVIL})
    f("pickle_named_npy", {"array.npy": EVIL})
    data = legacy(root=early(OBJECT))
    given = g("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(data)) + data
    f("storage_from_bytes", {"tensor.pkl": P4 + given + b"\x85R."})
    text = b"U\x02\xff\xfe0"  # no UTF-8: whoever loads it says that it is latin1
    f("code_behind_latin1", {"model.pkl": P2 + text + CALL + b"."})
    old = b"ZF" + hex(len(EVIL)).encode().ljust(19) + zlib.compress(EVIL)
    f("joblib_before_0_10", {"model.joblib": old})
    f("tar_named_as_a_pickle", {"model.tar": tarred(
        [("cos\nsystem\n(S'echo tensorkeep'\ntR.", P2 + b"N."), ("model.pkl", P2 + b"N.")]
    )})  # fmt: skip
    f("second_pickle", {"model.pkl": P2 + b"N." + EVIL})


def service(name, verdict, rules, files):
    keep(name, "I", verdict, rules, files if isinstance(files, dict) else {"model.pkl": files})


def bombs():
    opcodes = P2 + b"N0" * 20_000_000 + b"N."
    amplified = "container/amplification"
    for name, pack in {"gzip": gzip.compress, "zlib": zlib.compress, "bzip2": bz2.compress,
                       "xz": lzma.compress}.items():  # fmt: skip
        service(f"opcode_bomb_{name}", DANGEROUS, amplified, {"model.pkl.z": pack(opcodes)})
    deep = P2 + b"N."
    for _ in range(12):
        deep = gzip.compress(deep, mtime=0)
    service("twelve_times_gzip", UNKNOWN, "read/limit", {"model.pkl.gz": deep})
    inner = legacy()
    for _ in range(12):
        given = g("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(inner))
        inner = legacy(root=P4 + given + inner + b"\x85R.", rest=b"", keys=P2 + b"].")
    service("twelve_files_in_bytes", UNKNOWN, "read/limit", {"model.pth": inner})
    many = gzip.compress(b"N." * 120_000, mtime=0)
    service("hundred_thousand_pickles", UNKNOWN, "read/limit", {"model.pkl.gz": many})
    doubled = b"]" + b"(22222222l" * 40 + b"."
    service("dup_expansion", UNKNOWN, "", P2 + doubled)
    # Each DUP and TUPLE2 doubles what lies on the stack: 2**60 values out of 120 bytes.
    tuples = b"N" + b"2\x86" * 60
    service("doubled_tuples", DANGEROUS, amplified, P2 + tuples + b".")
    service("doubled_tuples_as_a_key", DANGEROUS, amplified, P2 + b"}" + tuples + b"Ns.")
    service("doubled_tuples_as_a_key_in_protocol_0", DANGEROUS, amplified, b"}" + tuples + b"Ns.")
    deeper = b"N" + b"2\x86" * 600
    service("doubled_tuples_as_a_deep_key", DANGEROUS, amplified, P2 + b"}" + deeper + b"Ns.")
    made = g("builtins", "set") + b"](" + tuples + b"e\x85R0N."
    service("doubled_tuples_in_a_set_that_is_dropped", DANGEROUS, "pickle/amplification", P2 + made)
    table = g("collections", "OrderedDict") + b")R" + tuples + b"Ns0N."
    service("doubled_tuples_in_an_ordered_dict", DANGEROUS, "pickle/amplification", P2 + table)


def counts():
    damaged = "read/damaged"
    huge = struct.pack("<q", 1 << 61) + WEIGHT
    service("legacy_count", UNKNOWN, damaged, {"model.pth": legacy(rest=huge)})
    large = OBJECT.replace(i(4) + b"Nt", i(1 << 61) + b"Nt")
    service("legacy_numel", UNKNOWN, damaged, {"model.pth": legacy(root=large, rest=huge)})
    service("legacy_negative_count", UNKNOWN, damaged, {
        "model.pth": legacy(rest=struct.pack("<q", -1))
    })  # fmt: skip
    known = dict(members())
    grown = known["storages"].replace(struct.pack("<q", 4), struct.pack("<q", 1 << 60))
    service("tar_count", UNKNOWN, damaged, {"model.pth": tarred(members(storages=grown))})
    dimensions = known["tensors"].replace(struct.pack("<i4x", 1), struct.pack("<i4x", 1 << 30))
    service("tar_dimensions", UNKNOWN, damaged, {"model.pth": tarred(members(tensors=dimensions))})
    many = tarred(members(storages=P2 + i(1 << 30) + b"."))
    service("tar_a_billion_storages", UNKNOWN, damaged, {"model.pth": many})
    shape = "(4611686018427387904, 2)"
    service("npy_shape", UNKNOWN, damaged, {"array.npy": npy("'<f8'", bytes(8), shape)})
    header = b"\x93NUMPY\x02\0" + struct.pack("<I", (1 << 32) - 1) + b"{"
    service("npy_header", UNKNOWN, "read/limit", {"array.npy": header})
    nested = npy("(" * 5_000, b"")
    service("npy_nested_header", UNKNOWN, damaged, {"array.npy": nested})
    array = wrapper(i(1 << 40) + b"\x85", dtype("f8")) + b"\x01\xff"
    service("joblib_shape", UNKNOWN, damaged, {"model.joblib": P2 + array + b"."})


if __name__ == "__main__":
    old_torch()
    old_tars()
    numpy_files()
    others()
    bombs()
    counts()
