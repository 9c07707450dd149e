"""The real command in a child of its own, under limits, its peak memory measured."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

# The peak of a child counts what its parent held when it forked; so a small process comes
# between this one, in which torch is loaded, and the command.
LAUNCHER = """
import json, os, resource, signal, sys, time

spec = json.loads(sys.argv[1])
pid = os.fork()
if pid == 0:
    os.dup2(os.open(spec["out"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
    os.dup2(os.open(spec["err"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name, value in spec["limits"].items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    os.chdir(spec["cwd"])
    os.execv(spec["argv"][0], spec["argv"])

def written():
    with open(f"/proc/{pid}/io") as lines:
        return int(dict(line.split(": ") for line in lines)["wchar"])

deadline, sent = time.monotonic() + spec["timeout"], not spec["signal"]
while True:
    done, status, usage = os.wait4(pid, os.WNOHANG)
    if done:
        break
    if not sent and written() > spec["after"]:
        os.kill(pid, spec["signal"])
        sent = True
    if time.monotonic() > deadline:
        os.kill(pid, signal.SIGKILL)
        deadline += 60
    time.sleep(0.005)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, sent]))
"""


@dataclass(frozen=True)
class Done:
    """How a child ended. `peak` in bytes."""

    code: int
    out: str
    err: str
    peak: int

    def sentence(self) -> str:
        """What it said on stderr, which must be one sentence of ours."""
        assert self.err.startswith("tensorkeep: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n")
        assert "Traceback" not in self.err
        assert "defect" not in self.err
        return self.err


@pytest.fixture
def command(tmp_path_factory):
    """Run `tensorkeep` with these arguments; "limits" are of setrlimit, sizes in bytes."""
    talk = tmp_path_factory.mktemp("talk")

    def run(*arguments, cwd, limits=None, timeout=30, signal=0, after=0, python="", prefix=()):
        program = ["-c", python] if python else ["-m", "tensorkeep"]
        spec = {
            "argv": [*prefix, sys.executable, *program, *map(str, arguments)],
            "out": str(talk / "out"),
            "err": str(talk / "err"),
            "cwd": str(cwd),
            "limits": limits or {},
            "timeout": timeout,
            "signal": signal,
            "after": after,
        }
        report = subprocess.run(
            [sys.executable, "-c", LAUNCHER, json.dumps(spec)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        code, peak, sent = json.loads(report)
        assert sent, "the child ended before the signal was sent"
        out, err = ((talk / name).read_text(errors="surrogateescape") for name in ("out", "err"))
        return Done(code, out, err, peak)

    return run


@pytest.fixture(scope="session")
def tensors():
    """A state dict with several dtypes, a view and a tie."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return {
        "encoder.weight": base,
        "encoder.half": torch.randn(5).half(),
        "encoder.turned": base.t(),
        "decoder.weight": base,
        "decoder.count": torch.tensor(7),
        "decoder.empty": torch.zeros(0, 3),
    }


@pytest.fixture(scope="session")
def good(tmp_path_factory, tensors) -> Path:
    """A folder with good.pth, good.safetensors and the sharded folder parts/."""
    folder = tmp_path_factory.mktemp("good")
    torch.save(tensors, folder / "good.pth")
    flat = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(flat, folder / "good.safetensors", {"format": "pt"})
    parts = folder / "parts"
    parts.mkdir()
    names = list(flat)
    weight_map = {}
    for number, chosen in ((1, names[:3]), (2, names[3:])):
        part = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: flat[name] for name in chosen}, parts / part, {"format": "pt"})
        weight_map |= dict.fromkeys(chosen, part)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (parts / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
