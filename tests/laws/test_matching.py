"""Whatever stack of wrappers changed the names, the way back is found, and it is short."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tensorkeep.matching.finding import find
from tensorkeep.matching.rules import applied
from tensorkeep.matching.specs import Spec

PARTS = ["conv", "norm", "attention", "mlp", "proj", "gate", "down", "up", "stem", "tail"]
LEAVES = [("weight", (8, 8)), ("bias", (8,)), ("running_mean", (8,))]
PREFIXES = ["module", "model", "_orig_mod", "net", "student", "_forward_module", "anything"]
INNER = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"]


@st.composite
def models(draw):
    """Blocks of some modules each, and some modules beside them."""
    top = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3, unique=True))
    block = draw(st.lists(st.sampled_from(PARTS), min_size=2, max_size=5, unique=True))
    homes = [*top, *(f"layers.{n}.{p}" for n in range(draw(st.integers(1, 4))) for p in block)]
    names = {}
    for home in homes:
        for leaf, shape in draw(st.lists(st.sampled_from(LEAVES), min_size=1, unique=True)):
            names[f"{home}.{leaf}"] = Spec("float32", shape)
    return names


@st.composite
def wrapped(draw):
    """A model, the names that a stack of wrappers gives it, and how many wrappers."""
    model = draw(models())
    prefixes = draw(st.lists(st.sampled_from(PREFIXES), max_size=3))
    inner = draw(st.none() | st.sampled_from(INNER))
    file = {}
    for name, spec in model.items():
        parts = name.split(".")
        if inner and parts[0] == "layers":
            parts.insert(2, inner)
        file[".".join([*prefixes, *parts])] = (name, spec)
    return model, file, len(set(prefixes)) + bool(inner)


@settings(max_examples=150)
@given(wrapped())
def test_stacks_are_undone(case):
    model, file, count = case
    names = {name: spec for name, (_, spec) in file.items()}
    match = find(names, model)
    assert match.fits and len(match.rules) <= count
    assert all(file[source][0] == name for name, source in match.names.items())
    assert applied(match.rules, names) == match.names
    back = find(model, names)
    assert back.fits and all(file[name][0] == source for name, source in back.names.items())


@settings(max_examples=150)
@given(models(), models())
def test_a_match_never_lies(file, model):
    match = find(file, model)
    after = applied(match.rules, file)
    assert isinstance(after, dict)
    filled = {n for n, source in after.items() if n in model and file[source] == model[n]}
    assert set(match.names) == filled
    assert set(match.missing) | set(match.names) | {m.name for m in match.mismatched} == set(model)
    assert set(match.unexpected) == set(after) - set(model)
    assert len({*match.names.values()}) == len(match.names)
