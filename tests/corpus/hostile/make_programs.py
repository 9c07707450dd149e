"""Hostile pickles by their opcodes: kinds C, D (ends of streams), K (against scanners), L (errors).

python tests/corpus/hostile/make_programs.py needs the standard library only. What a scan must
find is written by hand: code that a loader would have run by then is dangerous, whatever follows.
"""

from __future__ import annotations

import base64
import errno
import struct

from make import DANGEROUS, SUSPICIOUS, UNKNOWN, keep
from tricks import (
    ARG,
    CALL,
    EVIL,
    HONEST,
    NAMESPACE,
    OD,
    P2,
    P4,
    SYSTEM,
    checkpoint,
    g,
    i,
    sg,
    state_dict,
    tensor,
    u,
)

RUNS = "pickle/dangerous-call"
CHANGES = "pickle/changes-global"
STRANGER = g("models", "make")
_HARMLESS_TEXT = (
    "acos acosh asin asinh atan cbrt ceil cos cosh degrees erf erfc exp exp2 expm1 fabs floor "
    "factorial frexp gamma isfinite isinf isnan isqrt lgamma log log10 log1p log2 modf radians "
    "sin sinh sqrt tan tanh trunc ulp"
)
HARMLESS = _HARMLESS_TEXT.split()


def opcodes():
    ones = b"(K\x01"
    changed = {
        "slots_on_a_class": g("argparse", "Namespace") + b"N}" + u("x") + b"K\x01s\x86b",
        "item_into_environ": g("os", "environ") + u("TENSORKEEP") + u("1") + b"s",
        "extend_meta_path": g("sys", "meta_path") + ones + b"e",
        "state_on_a_type": g("builtins", "type") + b"N\x85R}" + u("x") + b"K\x01sb",
        "items_into_dispatch_table": g("copyreg", "dispatch_table") + b"K\x01K\x02s",
    }  # fmt: skip
    for name, value in changed.items():
        keep(name, "C", DANGEROUS, CHANGES, checkpoint(state_dict(value)))
    runs = {
        "function_doubled": SYSTEM + b"20" + ARG + b"R",
        "function_from_text_memo": SYSTEM + b"p7\n0g7\n" + ARG + b"R",
        "inst_in_protocol_4": P4 + b"(" + u("echo tensorkeep") + b"ios\nsystem\n",
        "argument_popped_and_put_back": SYSTEM + ARG + b"q\x090h\x09R",
        "marks_around_a_call": b"(" + CALL + b"1N",
    }
    for name, value in runs.items():
        keep(name, "C", DANGEROUS, RUNS, checkpoint(state_dict(value)))
    keyword = sg("collections", "OrderedDict") + b")}" + u("x") + b"K\x01s\x92"
    keep(
        "keyword_arguments",
        "C",
        SUSPICIOUS,
        "pickle/odd-arguments",
        checkpoint(state_dict(keyword, proto=P4)),
    )
    # The class attribute of an instance, and a state that is a call's result.
    cls = NAMESPACE + b"}" + u("__class__") + g("collections", "OrderedDict") + b"sb"
    keep("class_in_state", "C", SUSPICIOUS, "pickle/shadowing-key", checkpoint(state_dict(cls)))
    keep(
        "state_that_is_made",
        "C",
        SUSPICIOUS,
        "pickle/odd-effect",
        checkpoint(state_dict(NAMESPACE + OD + b"b")),
    )


def streams():
    honest = checkpoint(EVIL + HONEST)
    keep("code_in_the_first_of_two", "D", DANGEROUS, f"{RUNS} container/hidden-bytes", honest)
    keep(
        "zeros_after_stop",
        "D",
        SUSPICIOUS,
        "container/hidden-bytes",
        checkpoint(HONEST + bytes(4096)),
    )
    odd = "pickle/odd-structure"
    keep("protocol_twice", "D", SUSPICIOUS, odd, checkpoint(P2 + HONEST))
    keep("protocol_late", "D", SUSPICIOUS, odd, checkpoint(b"N0" + HONEST))
    body = b"\x80\x04\x95" + struct.pack("<Q", 4) + state_dict(proto=b"")
    keep("frame_ends_in_a_value", "D", SUSPICIOUS, odd, checkpoint(body))
    inner = state_dict(proto=b"")
    over = b"\x80\x04\x95" + struct.pack("<Q", len(inner) + 4) + inner + b"N00."
    keep("frame_past_stop", "D", SUSPICIOUS, odd, checkpoint(over))
    run = {
        "no_protocol": state_dict(CALL, proto=b""),
        "junk_of_marks": P2 + b"(1" * 300_000 + CALL + b".",
        "junk_of_frames": P4 + (b"\x95" + bytes(8)) * 50_000 + CALL + b".",
        "junk_of_text": P2 + u("a" * 2_000_000) + b"0" + CALL + b".",
        "junk_of_doubles": P2 + b"N" + b"20" * 300_000 + CALL + b".",
        "junk_of_memo": P2 + b"N" + b"q\x00h\x000" * 100_000 + CALL + b".",
    }
    for name, pickle in run.items():
        keep(name, "D", DANGEROUS, RUNS, checkpoint(pickle, deflate=True))


def nested():
    inside = b"B" + struct.pack("<I", len(EVIL)) + EVIL
    text = u(base64.b64encode(EVIL).decode())
    hidden = "container/hidden-pickle"
    keep("pickle_in_bytes", "D", SUSPICIOUS, hidden, checkpoint(state_dict(inside, proto=P4)))
    given = g("base64", "b64decode") + text + b"\x85R"
    unknown = "pickle/unknown-call"
    keep("pickle_in_base64", "D", SUSPICIOUS, unknown, checkpoint(state_dict(given)))
    keep("pickle_in_base64_text", "D", SUSPICIOUS, hidden, checkpoint(state_dict(text)))
    digits = checkpoint(state_dict(u(EVIL.hex())))
    keep("pickle_in_hexadecimal", "D", SUSPICIOUS, hidden, digits)
    unhexed = g("binascii", "unhexlify") + u(EVIL.hex()) + b"\x85R"
    hexed = checkpoint(state_dict(g("pickle", "loads") + unhexed + b"\x85R"))
    keep("pickle_in_hexadecimal_that_is_run", "D", DANGEROUS, RUNS, hexed)
    run = g("pickle", "loads") + given + b"\x85R"
    keep("pickle_in_base64_that_is_run", "D", DANGEROUS, RUNS, checkpoint(state_dict(run)))


def joblib():
    """An array in joblib's stream: joblib reads numbers there, and pickle.load opcodes."""
    dtype = g("numpy", "dtype") + u("u1") + b"\x89\x88\x87R(K\x03" + u("|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    hidden = b"0" + CALL
    wrapper = g("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81}("
    wrapper += u("subclass") + g("numpy", "ndarray") + u("shape") + b"K" + bytes([len(hidden)])
    wrapper += b"\x85" + u("order") + u("C") + u("dtype") + dtype + u("allow_mmap") + b"\x88ub"
    data = P2 + b"}" + u("a") + wrapper + hidden + b"s."
    keep("opcodes_in_an_array", "D", DANGEROUS, RUNS, {"model.joblib": data})


def arrays():
    # 2 ** 40 elements of no bytes each: nothing in the file bounds what printing them costs.
    number = b"(J\x03\0\0\0" + u("|") + b"NNNK\0J\xff\xff\xff\xffK\0tb"
    dtype = g("numpy", "dtype") + u("V0") + b"\x89\x88\x87R" + number
    array = g("numpy.core.multiarray", "_reconstruct") + g("numpy", "ndarray")
    array += b"(K\0t" + b"U\x01b\x87R(K\x01(\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"t"
    value = array + dtype + b"\x89U\0tb"
    keep(
        "array_of_nothing",
        "I",
        SUSPICIOUS,
        "pickle/odd-effect",
        checkpoint(state_dict(value)),
    )


def scanners():
    # Names that are there: what is behind them is reached.
    names = b"".join(g("errno", name) + b"0" for name in errno.errorcode.values()) * 20
    flood = b"".join(g("math", name) + b"K\x01\x85R0" for name in HARMLESS) * 60
    deep = b")" + b"\x85" * 3_000
    chain = NAMESPACE + b"}" + u("x")
    shared = b"]q\x00" + b"".join(b"0](h\x00h\x00eq\x00" for _ in range(40))
    number = b"\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000
    escapes = "\x1b]0;tensorkeep\x07\x1b[2J"
    hidden = {
        "flood_of_imports": names + CALL,
        "flood_of_calls": flood + CALL,
        "deep_argument": SYSTEM + deep + b"\x85R",
        "chain_of_objects": chain * 2_000 + CALL + b"sb" * 2_000,
        "object_in_itself": NAMESPACE + b"q\x00}" + u("me") + b"h\x00sb0" + CALL,
        "list_in_itself": b"]q\x00h\x00a0" + SYSTEM + b"h\x00\x85R",
        "shared_without_end": shared + b"0" + SYSTEM + b"h\x00\x85R",
        "number_of_megabytes": SYSTEM + number + b"\x85R",
        "not_a_number": SYSTEM + b"G\x7f\xf8" + bytes(6) + b"G\x7f\xf0" + bytes(6) + b"\x86R",
        "text_of_megabytes": SYSTEM + u("a" * 2_000_000) + b"\x85R",
        "many_arguments": SYSTEM + b"(" + b"N" * 500_000 + b"tR",
        "argument_in_escapes": SYSTEM + u(escapes) + b"\x85R",
    }  # fmt: skip
    for name, value in hidden.items():
        pickle = P2 + b"}" + u("extra") + value + b"s."
        keep(name, "K", DANGEROUS, RUNS, checkpoint(pickle, deflate=True))
    keys = (n * ((1 << 61) - 1) for n in range(1, 2_000))
    alike = b"".join(b"\x8a\x0a" + key.to_bytes(10, "little") + b"N" for key in keys)
    colliding = P2 + b"}(" + alike + b"u."
    keep(
        "colliding_keys",
        "K",
        DANGEROUS,
        "container/amplification",
        checkpoint(colliding, deflate=True),
    )
    unknown = "pickle/unknown-call"
    written = {
        "name_in_escapes": sg("models\x1b[31m", "make\r\x1b[2K"),
        "name_from_right_to_left": sg("models", "\u202emake\u2066"),
        "name_in_markup": sg("models", "[red]<script>alert(1)</script>[/red]"),
        "name_of_lines": sg("models\nos", "make\nsystem"),
        "name_with_zeros": sg("models\0", "make\0"),
        "name_of_a_megabyte": sg("models", "a" * 1_000_000),
        "name_of_half_a_character": b"X\x09\x00\x00\x00models\xed\xa0\x80" + u("make") + b"\x93",
        "name_like_an_option": sg("--format", "-o"),
        "name_of_nothing": sg("models", " "),
    }
    for name, value in written.items():
        pickle = state_dict(value + b")R", proto=P4)
        keep(name, "K", SUSPICIOUS, unknown, checkpoint(pickle, deflate=True))
    dots = sg("models", ".".join("a" * 200_000)) + b")R"
    keep(
        "name_of_dots",
        "K",
        SUSPICIOUS,
        "pickle/dotted-name",
        checkpoint(state_dict(dots, proto=P4), deflate=True),
    )
    keep(
        "key_in_escapes",
        "K",
        SUSPICIOUS,
        unknown,
        checkpoint(P2 + b"}" + u(escapes) + STRANGER + b")Rs."),
    )
    cyclic = b"]q\x00h\x00a0" + STRANGER + b"h\x00\x85R"
    keep("list_in_itself_given_away", "K", SUSPICIOUS, unknown, checkpoint(state_dict(cyclic)))
    option = {"--explain.pth": checkpoint(state_dict(CALL))}
    keep("file_like_an_option", "K", DANGEROUS, RUNS, option)


def deep_objects():
    """Objects in each other, as deep as no pickler writes: taken apart, they overflow the stack."""
    amplified = "pickle/amplification"
    made = g("collections", "defaultdict") + b"q\x01" + g("builtins", "list") + b"\x85q\x02R"
    chain = made + b"K\x00" + b"h\x01h\x02RK\x00" * 4_499 + b"N" + b"s" * 4_500
    keep("dictionaries_in_each_other", "I", DANGEROUS, amplified, {"model.pkl": P2 + chain + b"."})
    popped = {"model.pkl": P2 + chain + b"0" + HONEST[2:]}
    keep("dictionaries_in_each_other_popped", "I", DANGEROUS, amplified, popped)
    text = u("a" * 200_000) + b"q\x010" + g("_codecs", "encode") + b"q\x020"
    encoded = b"h\x02h\x01" + u("latin1") + b"\x86R"
    again = checkpoint(P2 + text + b"](" + encoded * 5_000 + b"e.", deflate=True)
    keep("text_encoded_again_and_again", "I", DANGEROUS, amplified, again)
    view = g("torch._utils", "_rebuild_device_tensor_from_cpu_tensor") + b"("
    view += tensor(shape=(1 << 40,), stride=(0,)) + g("torch", "float64") + u("cpu") + b"\x89tR"
    keep("moved_tensor_of_terabytes", "I", DANGEROUS, amplified, checkpoint(state_dict(view)))
    # A dtype of objects that is given fields of none: numpy takes it for one without objects.
    dtype = g("numpy", "dtype") + u("O8") + b"\x89\x88\x87R"
    state = b"(K\x03" + u("|") + b"N)}" + i(-1) + i(-1) + b"K\x10tb"
    unsound = checkpoint(state_dict(dtype + state))
    keep("objects_without_a_flag", "G", SUSPICIOUS, "pickle/odd-effect", unsound)


def errors():
    damaged = {
        "truncated_text": b"X\xff\x00\x00\x00abc",
        "truncated_name": b"cos\nsys",
        "empty_stack": b"0000.",
        "memo_that_is_not_there": b"h\x63.",
        "frame_beyond_the_end": b"\x95" + struct.pack("<Q", 1 << 40) + b".",
        "text_that_is_not_text": b"X\x02\x00\x00\x00\xff\xfe.",
        "number_beyond_the_end": b"\x8b\xff\xff\xff\x7fN.",
        "key_that_cannot_be_one": b"}]Ns.",
        "memo_below_zero": b"p-1\n.",
        "mark_that_is_not_there": b"0t.",
        "call_of_a_number": b"K\x01)R.",
        "state_of_a_number": b"K\x01}b.",
        "extension_of_zero": b"\x82\x00.",
        "digits_that_are_none": b"Iabc\n.",
        "list_that_is_none": b"K\x01(Ne.",
    }
    for name, then in damaged.items():
        keep(
            f"code_before_{name}",
            "L",
            DANGEROUS,
            f"{RUNS} read/damaged",
            checkpoint(P4 + CALL + then),
        )
    unsupported = {"a_buffer_from_outside": b"\x97.", "protocol_6": b"\x80\x06."}
    for name, then in unsupported.items():
        rules = f"{RUNS} read/unsupported"
        keep(f"code_before_{name}", "L", DANGEROUS, rules, checkpoint(P4 + CALL + then))
    many = checkpoint(P4 + CALL + b"(" * 5_000_000 + b".", deflate=True)
    keep("code_before_a_limit", "L", DANGEROUS, f"{RUNS} read/limit", many)
    whole = checkpoint(state_dict(CALL))
    keep("code_in_half_a_file", "L", UNKNOWN, "", whole[: len(whole) // 2])
    lost = whole[: whole.rindex(b"PK\1\2")] + whole[whole.rindex(b"PK\5\6") :]
    keep("code_in_a_damaged_directory", "L", UNKNOWN, "", lost)


if __name__ == "__main__":
    for group in (opcodes, streams, nested, joblib, arrays, scanners, deep_objects, errors):
        group()
