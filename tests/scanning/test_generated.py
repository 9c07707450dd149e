"""The generated tables are what their generator writes out of the installed torch and Python."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from tensorkeep.scanning import _allow_modules, allowlist

WRITTEN_BY = (3, 11)


@pytest.fixture(scope="module")
def tool(root):
    path = root / "tools" / "make_allowlist.py"
    spec = importlib.util.spec_from_file_location("make_allowlist", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_what_the_tool_writes(tool, root):
    # In a process of its own: transformers gives torch's modules methods when it is imported.
    code = (
        "import json, sys, warnings; sys.path.insert(0, sys.argv[1]); import make_allowlist as m\n"
        "warnings.simplefilter('ignore')\n"
        "print(json.dumps({name: write() for name, write in m.TABLES.items()}))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(root / "tools")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written = json.loads(done.stdout.splitlines()[-1])
    for name, text in written.items():
        if name == "_allow_enum_values.py" and sys.version_info[:2] != WRITTEN_BY:
            continue  # each Python has members of its own: the table is that of the oldest
        assert text == (tool.SCANNING / name).read_text(encoding="utf-8"), name


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_state_of_an_instance_hides_a_name_of_its_class(tool):
    for (module, name), keys in tool.module_keys().items():
        entry = allowlist.lookup(module, name)
        state = dict.fromkeys(keys, 1)
        if name not in _allow_modules._RECURRENT:
            assert entry.blame(None, (state,)) == "", name
        for hidden in ("forward", "_compiled_call_impl", "append", "__call__", "state_dict"):
            assert entry.blame(None, ({hidden: 1},)) == "pickle/shadowing-key"


def test_every_class_that_has_a_setstate_was_read(tool):
    classes = tool.module_classes().values()
    owners = {
        base.__name__ for cls in classes for base in cls.__mro__ if "__setstate__" in vars(base)
    }
    assert owners <= tool.READ_SETSTATE.keys()
    assert torch.nn.LSTM in classes
    assert torch.nn.LazyLinear not in classes
