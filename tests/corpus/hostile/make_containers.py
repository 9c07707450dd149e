"""Containers that attack whoever opens them: TorchScript, packages, exported programs, bundles.

python tests/corpus/hostile/make_containers.py needs the standard library only. What a scan must
find is written here by hand, from what a loader would do. The letters are kinds of attack: E two
readers that differ, F containers, J paths. Source of the layouts: torch 2.13.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from make import keep  # noqa: E402
from tricks import (  # noqa: E402
    CALL,
    EVIL,
    HONEST,
    P2,
    WEIGHT,
    Member,
    archive,
    checkpoint,
    g,
    state_dict,
    tensor,
    u,
)

DANGEROUS, SUSPICIOUS, UNKNOWN = "dangerous", "suspicious", "unknown"
CODE, HIDDEN = "pickle/dangerous-call", "container/hidden-pickle"
OUTSIDE, UNHEARD = "code/reaches-outside", "code/unknown-operator"
AMBIGUOUS, TRAVERSAL = "container/ambiguous", "container/path-traversal"

SOURCE = """class M(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
  training : bool
  def forward(self: __torch__.M,
    x: Tensor) -> Tensor:
    return torch.add(x, self.weight)
"""
MODULE = P2 + g("__torch__", "M") + b")\x81}" + u("weight") + tensor() + b"sb."


def root(files, name="archive", **options):
    """A zip with everything below one folder."""
    members = [Member(f"{name}/{inner}", data) for inner, data in files.items()]
    return archive(members, **options)


def script(source=SOURCE, **more):
    """A TorchScript archive; `more` are files by name, in place of its own or beside them."""
    files = {
        "data.pkl": MODULE,
        "data/0": WEIGHT,
        "code/__torch__.py": source.encode(),
        "constants.pkl": P2 + b").",
        "version": b"3\n",
        "byteorder": b"little",
    }
    return root(files | more)


def package(**more):
    """A package of torch.package with one honest pickle."""
    storage = P2 + b"}" + u("weight") + tensor("0").replace(u("0"), b"K\0") + b"s."
    files = {
        ".data/extern_modules": b"torch._utils\ntorch\ncollections\nos\n",
        ".data/0.storage": WEIGHT,
        "weights/weights.pkl": storage,
        ".data/version": b"6\n",
        "byteorder": b"little",
    }
    return root(files | more)


def meta(path="weight_0", sizes=(4,), strides=(1,), offset=0, pickled=False):
    integers = [[{"as_int": number} for number in numbers] for numbers in (sizes, strides)]
    return {
        "path_name": path,
        "is_param": True,
        "use_pickle": pickled,
        "tensor_meta": {
            "dtype": 7,
            "sizes": integers[0],
            "strides": integers[1],
            "storage_offset": {"as_int": offset},
            "requires_grad": True,
            "device": {"type": "cpu", "index": None},
            "layout": 7,
        },
    }


def node(target="torch.ops.aten.relu.default"):
    return {"target": target, "inputs": [], "outputs": [], "metadata": {}}


def exported(weight=None, constants=None, target=None, graph=None, **more):
    """An exported program; `graph` are further fields of its JSON."""
    program = {"graph_module": {"graph": {"nodes": [node(*([target] if target else []))]}}}
    files = {
        "data/weights/weight_0": WEIGHT,
        "data/weights/model_weights_config.json": {"config": {"weight": weight or meta()}},
        "data/constants/model_constants_config.json": {"config": constants or {}},
        "models/model.json": program | (graph or {}),
        "data/sample_inputs/model.pt": checkpoint(P2 + b")}\x86."),
        "archive_format": b"pt2",
        "archive_version": b"0",
        ".data/version": b"6\n",
        "byteorder": b"little",
    } | more
    return root(
        {n: d if isinstance(d, bytes) else json.dumps(d).encode() for n, d in files.items()}
    )


def tar(files, *infos):
    """A tar archive of `files`, and `infos` that have no data."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        for info in infos:
            made.addfile(info)
    return out.getvalue()


def link(kind, name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


NEMO = {"model_config.yaml": b"name: x\n", "model_weights.ckpt": checkpoint(HONEST)}
MAR = {"MAR-INF/MANIFEST.json": b"{}", "model.pt": checkpoint(HONEST)}


def plain(files, **options):
    return archive([Member(name, data) for name, data in files.items()], **options)


def scripts():
    def runs(name, verdict=DANGEROUS, rules=CODE, **files):
        source = files.pop("source", SOURCE)
        keep(name, "F", verdict, rules, {"model.pt": script(source, **files)})

    def calls(name, line, verdict=DANGEROUS, rules=OUTSIDE):
        runs(name, verdict, rules, source=SOURCE.replace("torch.add(x, self.weight)", line))

    runs("script_constants", **{"constants.pkl": P2 + CALL + b"\x85."})
    runs("script_data", **{"data.pkl": state_dict(CALL)})
    runs("script_traced_inputs", **{"traced_inputs.pkl": EVIL})
    # Each module holds the next one twice.
    shared = P2 + g("__torch__", "M") + b")\x81q\x00}" + u("weight") + tensor() + b"sb0"
    for at in range(60):
        shared += g("__torch__", "M") + b")\x81q" + bytes([at + 1]) + b"}("
        shared += u("a") + b"h" + bytes([at]) + u("b") + b"h" + bytes([at]) + b"ub0"
    shared += b"h" + bytes([60]) + b"."
    runs("script_of_doubled_modules", DANGEROUS, "container/amplification", **{"data.pkl": shared})
    runs("script_debug_pickle", **{"code/__torch__.py.debug_pkl": EVIL})
    runs("script_extra_file", rules=f"{CODE} {HIDDEN}", **{"extra/labels.txt": EVIL})
    runs("script_bytecode_pickle", **{"bytecode.pkl": EVIL})
    calls("script_writes_a_file", 'torch.save(x, "/tmp/tensorkeep")')
    calls("script_method_writes", 'x.save("/tmp/tensorkeep")')
    calls("script_reads_a_file", 'torch.from_file("/etc/hostname", False, 4)')
    calls("script_operator_by_namespace", 'ops.aten.save(x, "/tmp/tensorkeep")')
    calls("script_getattr", 'getattr(torch, "save")(x, "/tmp/tensorkeep")')
    calls("script_alias", "t.save2(x)\n  t = torch", SUSPICIOUS, UNHEARD)
    calls("script_split_over_lines", '(torch.\n  # \n  save)(x, "/tmp/tensorkeep")')
    calls("script_custom_operator", "ops.mine.anything(x)", SUSPICIOUS, UNHEARD)
    calls("script_python_function", "^anything()(x)", SUSPICIOUS, UNHEARD)
    calls("script_rpc", "ops.prim.rpc_sync(x)")
    operators = P2 + b"(X\x09\0\0\0operators((X\x0a\0\0\0aten::saveX\0\0\0\0K\x02ttt."
    runs("script_bytecode_operator", rules=OUTSIDE, **{"bytecode.pkl": operators})


def packages():
    def runs(name, verdict, rules, **files):
        keep(name, "F", verdict, rules, {"model.pt": package(**files)})

    runs("package_pickle", DANGEROUS, CODE, **{"weights/weights.pkl": state_dict(CALL)})
    runs("package_resource", DANGEROUS, CODE, **{"res/picture.png": EVIL})
    reduce = P2 + b"(" + u("reduce_package") + b"K\x01" + g("os", "system") + u("echo") + b"\x85tQ."
    runs("package_reduction", DANGEROUS, CODE, **{"x/x.pkl": reduce})
    source = {"collections/__init__.py": b"OrderedDict = print\n"}
    runs("package_hides_a_module", SUSPICIOUS, "package/own-code code/python-source", **source)
    own = P2 + g("own.module", "f") + b")R."
    files = {"own/module.py": b"def f():\n    pass\n", "x/x.pkl": own}
    runs("package_calls_its_own", SUSPICIOUS, "package/own-code", **files)
    runs("package_script_pickle", DANGEROUS, CODE, **{".data/ts_code/0/data.pkl": EVIL})
    line = SOURCE.replace("torch.add(x, self.weight)", 'torch.save(x, "/tmp/tensorkeep")')
    code = {".data/ts_code/code/__torch__.py": line.encode()}
    runs("package_script_operator", DANGEROUS, OUTSIDE, **code)


def programs():
    def runs(name, verdict, rules, data):
        keep(name, "F", verdict, rules, {"model.pt2": data})

    sample = {"data/sample_inputs/model.pt": checkpoint(state_dict(CALL))}
    runs("pt2_sample_inputs", DANGEROUS, CODE, exported(**sample))
    constants = {"c": {"path_name": "opaque_obj_0", "use_pickle": True}}
    opaque = {"data/constants/opaque_obj_0": EVIL}
    runs("pt2_opaque_object", DANGEROUS, CODE, exported(constants=constants, **opaque))
    pickled = {"data/weights/weight_1": checkpoint(EVIL)}
    weight = meta("weight_1", pickled=True)
    runs("pt2_pickled_weight", DANGEROUS, CODE, exported(weight=weight, **pickled))
    old = {"data/weights/model.pt": checkpoint(EVIL)}
    runs("pt2_weights_of_2_8", DANGEROUS, CODE, exported(**old))
    compiled = {"data/aotinductor/model/model.so": b"\x7fELF" + bytes(60)}
    runs("pt2_compiled_code", SUSPICIOUS, "container/native-code", exported(**compiled))
    flags = {"data/aotinductor/model/x_compile_flags.json": b"{}"}
    runs("pt2_compiler_flags", SUSPICIOUS, "container/native-code", exported(**flags))
    expression = {"expr_str": "__import__('os').system('echo')"}
    runs("pt2_expression", DANGEROUS, OUTSIDE, exported(graph={"range": expression}))
    runs("pt2_guard", DANGEROUS, OUTSIDE, exported(graph={"guards_code": ["exit()"]}))
    runs("pt2_target", DANGEROUS, OUTSIDE, exported(target="torch.serialization.os.system"))
    mapped = "torch.ops.aten.from_file.default"
    runs("pt2_reads_a_file", DANGEROUS, OUTSIDE, exported(target=mapped))
    runs("pt2_custom_operator", SUSPICIOUS, UNHEARD, exported(target="torch.ops.mine.f.default"))
    factory = json.dumps(
        {"default_factory_module": "os", "default_factory_name": "abort", "dict_context": []}
    )
    spec = json.dumps(
        [1, {"type": "collections.defaultdict", "context": factory, "children_spec": []}]
    )
    runs("pt2_tree_of_inputs", DANGEROUS, OUTSIDE, exported(graph={"in_spec": spec}))
    before = {
        "serialized_exported_program.json": b"{}",
        "serialized_state_dict.pt": checkpoint(state_dict(CALL)),
        "version": b"8.7",
    }
    runs("pt2_before_2_8", DANGEROUS, CODE, plain(before))
    runs(
        "pt2_past_the_end",
        DANGEROUS,
        "tensor/out-of-bounds",
        exported(weight=meta(sizes=(1 << 40,))),
    )


def bundles():
    weights = {**NEMO, "model_weights.ckpt": checkpoint(state_dict(CALL))}
    keep("nemo_weights", "F", DANGEROUS, CODE, {"model.nemo": tar(weights)})
    packed = gzip.compress(tar(weights), mtime=0)
    keep("nemo_gzip", "F", DANGEROUS, CODE, {"model.nemo": packed})
    config = {**NEMO, "model_config.yaml": b"encoder:\n  _target_: os.system\n"}
    keep("nemo_target", "F", DANGEROUS, OUTSIDE, {"model.nemo": tar(config)})
    keep("nemo_hidden", "F", DANGEROUS, CODE, {"model.nemo": tar({**NEMO, "vocab.txt": EVIL})})
    evil = {**MAR, "model.pt": checkpoint(state_dict(CALL))}
    keep("mar_model", "F", DANGEROUS, CODE, {"model.mar": plain(evil)})
    handler = {**MAR, "handler.py": b"import os\nos.system('echo tensorkeep')\n"}
    keep("mar_handler", "F", SUSPICIOUS, "code/python-source", {"model.mar": plain(handler)})
    keep("mar_extra_file", "F", DANGEROUS, CODE, {"model.mar": plain({**MAR, "vocab": EVIL})})
    nested = checkpoint(EVIL)
    for number in range(3):
        nested = plain({f"{number}.zip": nested})
    keep("zip_in_zip", "F", DANGEROUS, CODE, {"model.zip": nested})
    disguised = tar({"picture.jpg": plain({"song.mp3": checkpoint(EVIL)})})
    keep("renamed_extensions", "F", DANGEROUS, CODE, {"model.tar": disguised})
    several = {"a.pth": checkpoint(HONEST), "b.pth": checkpoint(state_dict(CALL))}
    keep("one_of_several", "F", DANGEROUS, CODE, {"models.zip": plain(several)})
    library = {**MAR, "ops.txt": b"\x7fELF" + bytes(60)}
    keep("library_in_bundle", "F", SUSPICIOUS, "container/native-code", {"m.mar": plain(library)})
    old = P2 + b"}" + u("weight") + tensor() + b"s."
    keep(
        "jpg_is_a_pickle",
        "F",
        DANGEROUS,
        CODE,
        {"picture.jpg": checkpoint(old[:-1] + CALL + b"0.")},
    )


def differences():
    def differs(name, verdict, rules, data):
        keep(name, "E", verdict, rules, {"model.pt": data})

    both = f"{AMBIGUOUS} {CODE}"
    evil = script(**{"data.pkl": state_dict(CALL), ".format_version": b"1"})
    differs("script_and_save", DANGEROUS, both, evil)
    differs(
        "script_without_code",
        SUSPICIOUS,
        AMBIGUOUS,
        root(
            {
                "data.pkl": HONEST,
                "data/0": WEIGHT,
                "constants.pkl": P2 + b").",
                "version": b"3\n",
            }
        ),
    )
    differs("exported_and_save", DANGEROUS, both, exported(**{"data.pkl": EVIL}))
    honest = {"data.pkl": HONEST, "data/0": WEIGHT}
    differs("package_and_save", SUSPICIOUS, AMBIGUOUS, package(**honest))
    differs("package_and_script", DANGEROUS, both, package(**{"constants.pkl": EVIL, **honest}))
    differs(
        "patched_flag",
        UNKNOWN,
        AMBIGUOUS,
        checkpoint(HONEST, Member("archive/x", b"", flags=0x20)),
    )
    differs(
        "strong_encryption",
        UNKNOWN,
        "",
        checkpoint(HONEST, Member("archive/x", b"", flags=0x40)),
    )
    differs("pickle_before_the_zip", DANGEROUS, CODE, EVIL + checkpoint(HONEST))
    differs("unicode_path", SUSPICIOUS, AMBIGUOUS, _unicode_path())
    differs("entry_count", SUSPICIOUS, AMBIGUOUS, _counted(checkpoint(HONEST), -1))
    descriptor = Member("archive/x", b"abc", flags=8)
    differs("descriptor_missing", SUSPICIOUS, AMBIGUOUS, checkpoint(HONEST, descriptor))


def _unicode_path():
    """A member to which an extra field of the directory gives another name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in (("archive/data.pkl", HONEST), ("archive/data/0", WEIGHT)):
            made.writestr(zipfile.ZipInfo(name), data)
        info = zipfile.ZipInfo("archive/notes")
        path = b"archive/data.pkl"
        body = b"\x01" + struct.pack("<I", zlib.crc32(b"archive/notes")) + path
        info.extra = struct.pack("<HH", 0x7075, len(body)) + body
        made.writestr(info, b"x")
        made.writestr(zipfile.ZipInfo("archive/version"), b"3\n")
    return out.getvalue()


def _counted(data, more):
    """The end record announces one entry fewer than there are."""
    made = bytearray(data)
    end = made.rfind(b"PK\5\6")
    for at in (8, 10):
        (count,) = struct.unpack_from("<H", made, end + at)
        struct.pack_into("<H", made, end + at, count + more)
    return bytes(made)


def paths():
    def climbs(name, file, data, verdict=DANGEROUS, rules=TRAVERSAL):
        keep(name, "J", verdict, rules, {file: data})

    climbs("drive_letter", "model.pth", checkpoint(HONEST, Member("C:/evil", b"x")))
    climbs("backslashes", "model.pth", checkpoint(HONEST, Member("archive\\..\\..\\evil", b"x")))
    climbs("network_share", "model.pth", checkpoint(HONEST, Member("\\\\host\\share\\evil", b"x")))
    climbs("nul_in_a_name", "model.pth", checkpoint(HONEST, Member("archive/a\0/../../b", b"x")))
    climbs(
        "key_with_backslash",
        "model.pth",
        checkpoint(P2 + b"}" + u("bent") + tensor("..\\0") + b"s."),
    )
    climbs("tar_dots", "model.nemo", tar({**NEMO, "../../tmp/evil": b"x"}))
    climbs("tar_absolute", "model.nemo", tar({**NEMO, "/etc/cron.d/evil": b"x"}))
    out = link(tarfile.SYMTYPE, "weights", "/etc")
    climbs("tar_symbolic_link", "model.nemo", tar(NEMO, out))
    hard = link(tarfile.LNKTYPE, "weights", "../../etc/passwd")
    climbs("tar_hard_link", "model.nemo", tar(NEMO, hard))
    through = tar({**NEMO, "link/evil": b"x"}, link(tarfile.SYMTYPE, "link", ".."))
    climbs("tar_through_a_link", "model.nemo", through)
    climbs(
        "zip_in_zip_dots", "model.zip", plain({"a.zip": checkpoint(HONEST, Member("../x", b"x"))})
    )
    climbs("package_member", "model.pt", package(**{"../../../tmp/evil.py": b"x = 1\n"}))
    climbs("script_code_path", "model.pt", script(**{"code/../../../tmp/evil.py": b"x"}))
    key = P2 + tensor("../0") + b"\x85."
    climbs("script_constant_key", "model.pt", script(**{"constants.pkl": key}))
    climbs("pt2_weight_path", "model.pt2", exported(weight=meta("../../../etc/passwd")))
    climbs("pt2_weight_absolute", "model.pt2", exported(weight=meta("/etc/passwd")))
    index = {"metadata": {}, "weight_map": {"weight": "/etc/passwd"}}
    climbs("index_absolute", "m.safetensors.index.json", json.dumps(index).encode(), UNKNOWN, "")
    index = {"metadata": {}, "weight_map": {"weight": "..\\..\\evil.safetensors"}}
    climbs("index_backslash", "m.safetensors.index.json", json.dumps(index).encode(), UNKNOWN, "")


def service():
    rules = "container/amplification container/ambiguous"
    keep("one_member_a_hundred_times", "I", DANGEROUS, rules, {"model.zip": again(100)})
    named = again(100, "{}.pth")
    keep("one_model_a_hundred_times", "I", DANGEROUS, rules, {"models.zip": named})


def again(count, name="{}.txt"):
    """A directory that names the same 16 MB of zeros, packed to 16 KB, many times."""
    data = bytes(16 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    sizes = (zlib.crc32(data), len(packed), len(data))
    common = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0x21, *sizes)
    out = b"PK\3\4" + common + struct.pack("<HH", 1, 0) + b"x" + packed
    directory = b""
    for number in range(count):
        raw = name.format(number).encode()
        tail = struct.pack("<HHHHHII", len(raw), 0, 0, 0, 0, 0, 0)
        directory += b"PK\1\2" + struct.pack("<H", 20) + common + tail + raw
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(out), 0)
    return out + directory + b"PK\5\6" + end


if __name__ == "__main__":
    for group in (scripts, packages, programs, bundles, differences, paths, service):
        group()
