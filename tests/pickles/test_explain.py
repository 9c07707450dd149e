"""A pickle in words: what shows, what is counted, and that nothing which runs is left out."""

from __future__ import annotations

import pickle
import time
from collections import Counter, OrderedDict

import pytest

from tensorkeep.facts import Limits
from tensorkeep.pickles import Call, run
from tensorkeep.pickles.explain import explain

SYSTEM = b"cos\nsystem\n"


def text(data, weigh=lambda event: 0, **options):
    return [line.text for line in explain(run(data, **options), weigh)]


def heavy(event):
    return 2 if isinstance(event, Call) else 0


def test_a_call_whose_result_is_thrown_away_shows():
    lines = explain(run(b"\x80\x02" + SYSTEM + b"U\x02hi\x85R0K\x03."))
    assert [(line.offset, line.text, line.kind) for line in lines] == [
        (2, "from os import system", "import"),
        (18, "os.system('hi')", "call"),
        (22, "return 3", "return"),
    ]
    assert (lines[1].module, lines[1].name, lines[1].qualified) == ("os", "system", "os.system")


def test_a_result_used_once_is_written_where_it_is_used_unless_it_weighs():
    data = b"\x80\x02]" + SYSTEM + b"U\x02hi\x85Ra."
    assert text(data)[-1] == "return [os.system('hi')]"
    assert text(data, heavy)[1:] == ["v1 = os.system('hi')", "return [v1]"]


def test_a_result_used_twice_or_changed_later_gets_a_variable():
    twice = b"\x80\x02capp\nmake\n)R2\x86."
    assert text(twice)[1:] == ["v1 = app.make()", "return (v1, v1)"]
    changed = b"\x80\x02capp\nThing\n)\x81}U\x01aK\x01sb."
    assert text(changed)[1:] == [
        "v1 = app.Thing.__new__()",
        "v1.__setstate__({'a': 1})",
        "return v1",
    ]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x80\x02(U\x02hiios\nsystem\n.", "v1 = os.system('hi')"),
        (b"\x80\x02(cos\nsystem\nU\x02hio0N.", "os.system('hi')"),
        (b"\x80\x04\x8c\x03app\x8c\x05Thing\x93)}\x8c\x01kK\x01s\x92.", "**{'k': 1}"),
        (b"\x80\x02capp\nThing\n)\x81(K\x01K\x02e.", "v1.extend(1, 2)"),
        (b"\x80\x04capp\nThing\n)\x81(K\x01\x90.", "v1.add(1)"),
        (b"\x80\x02capp\nThing\n)\x81(U\x01aK\x01U\x01bK\x02u.", "v1['b'] = 2"),
        (b"\x80\x02capp\nThing\nN}U\x01aK\x01s\x86b.", "by setattr, one by one"),
        (b"\x80\x02U\x03keyQ.", "persistent('key')"),
        (b"\x80\x02U\x03keyQ0N.", "persistent('key')"),
        (b"\x80\x02\x82\x07)R.", "copyreg has registered as extension 7"),
        (b"\x80\x02capp\nname\n)R\x8c\x01x\x93.", "a name that is computed"),
        (b"\x80\x02c__builtin__\neval\n.", "from builtins import eval  # written __builtin__.eval"),
        (b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93.", "from torch import os.system"),
        (b"\x80\x02" + SYSTEM + b"U\x02hi\x85R\xff.", "os.system('hi')"),
        (b"\x80\x02" + SYSTEM + b"U\x02hi\x85R\xff.", "breaks off here: expected an opcode"),
    ],
)
def test_every_way_to_run_something_shows(data, shown):
    assert any(shown in line for line in text(data, heavy)), text(data, heavy)


def test_a_call_that_lies_in_its_own_arguments_is_not_lost():
    # The list is an argument, then gets the call's result appended, then everything is dropped.
    data = b"\x80\x02capp\nmake\n]q\x00\x85Rq\x010h\x00h\x01a0N."
    lines = text(data)
    assert lines[1] == "v1 = app.make([v1])  # an argument is changed later, at 24"
    assert lines[-1] == "return None"


def test_what_contains_itself_ends():
    loop = []
    loop.append(loop)
    assert text(pickle.dumps(loop)) == ["v1 = [v1]", "return v1"]
    tree = {"self": None, "many": list(range(200))}
    tree["self"] = tree
    assert len(text(pickle.dumps(tree))) < 40


def test_what_is_shared_is_written_once():
    shared = {"a long key of a shared dict": list(range(30))}
    lines = text(pickle.dumps([shared, shared]))
    assert sum("a long key" in line for line in lines) == 1
    assert lines[-1] == "return [v1, v1]"


def test_what_repeats_is_counted():
    state = OrderedDict((f"layer.{at}.weight", complex(at, 1)) for at in range(20_000))
    lines = text(pickle.dumps(state, 2))
    assert len(lines) < 10, lines
    assert "... 19,998 more like these" in "".join(lines)
    assert any("layer.0.weight" in line for line in lines)


def test_several_pickles_have_their_own_offsets():
    data = pickle.dumps(1) + b"\x80\x02" + SYSTEM + b"U\x02hi\x85R."
    first = run(data)
    second = explain(run(data, first.end))
    assert (first.end, [line.offset for line in second][:2]) == (5, [7, 24])


def test_text_of_the_file_is_escaped():
    name = "a\x1b[31m\u202eb"
    module = "m\x07"
    data = b"\x80\x04\x8c" + bytes([len(module.encode())]) + module.encode()
    data += b"\x8c" + bytes([len(name.encode())]) + name.encode() + b"\x93\x8c\x03\x1b\x9b"[:5]
    data = data[: data.index(b"\x93") + 1] + b"\x8c\x02\x1b\x07\x85R."
    for line in text(data, heavy):
        assert line.isprintable(), line


def test_a_flood_of_light_steps_does_not_push_out_a_heavy_one():
    flood = b"".join(b"capp\nf%d\n)R0" % at for at in range(3000))
    data = b"\x80\x02" + flood + SYSTEM + b"U\x02hi\x85R0N."
    lines = text(data, lambda e: 2 if isinstance(e, Call) and e.func.module == "os" else 0)
    assert "os.system('hi')" in lines
    assert len(lines) < 1_000
    assert any(line.startswith("... ") for line in lines)


def exponential(levels):
    return (
        b"\x80\x02]q\x00" + b"".join(b"(h%ch%clq%c" % (i, i, i + 1) for i in range(levels)) + b"."
    )


@pytest.mark.parametrize(
    "data",
    [
        exponential(200),
        b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
        b"\x80\x02" + b"(" * 300_000 + b"l" * 300_000 + b".",
        b"\x80\x02" + b"capp\nmake\n" + b")R" * 200_000 + b".",
        b"\x80\x02capp\nmake\n)Rq\x00" + b"}b" * 200_000 + b".",
        b"\x80\x02" + b"".join(b"c%d\nf\n)R0" % at for at in range(60_000)) + b"N.",
        b"\x80\x02]" + b"X\x10\x27\x00\x00" + b"x" * 10_000 + b"a" + b"K\x01a" * 500_000 + b".",
        b"\x80\x02(" + b"U\x03keyQ" * 200_000 + b"l.",
        b"\x80\x02\x8b\x40\x42\x0f\x00" + b"\x7f" * 1_000_000 + b".",
    ],
    ids=["shared", "deep", "marks", "chain", "build", "names", "long", "persistent", "integer"],
)
def test_hostile_programs_are_written_in_bounded_time_and_room(data):
    program = run(data, limits=Limits())
    began = time.monotonic()
    lines = explain(program, heavy)
    assert time.monotonic() - began < 8
    assert len(lines) < 1_500
    assert max(len(line.text) for line in lines) < 2_000


def test_every_call_of_an_honest_pickle_is_accounted_for():
    values = [complex(1, 2), Counter("hello"), OrderedDict(a=1), {1, 2}, range(3), slice(1, 2)]
    for protocol in range(6):
        program = run(pickle.dumps(values, protocol))
        calls = [event for event in program.trace if isinstance(event, Call)]
        shown = "\n".join(line.text for line in explain(program, heavy))
        assert shown.count("(") >= len(calls) > 3


def test_a_name_that_is_no_name_is_quoted():
    data = b"\x80\x02ccollections\nOrderedDict  # as usual\n0N."
    assert text(data)[0] == "from collections import 'OrderedDict  # as usual'"


def test_a_set_is_written_in_an_order_of_its_own():
    words = {f"{number:03d} {'w' * 40}" for number in range(9)}
    lines = text(pickle.dumps(words, 4))
    shown = [line.strip(" ,") for line in lines if "www" in line]
    assert len(shown) > 2
    assert shown == sorted(shown)
    assert any("150 items" in line for line in text(pickle.dumps(set(map(str, range(150))), 4)))
