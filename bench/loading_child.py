"""One load, in a fresh process: `loading_child.py WAY FILE FOLDER`; what it took is its last line.

Memory is conditioned first: on a virtual machine the first touch of what was handed back to the
host costs more than the load itself, so that as much as will be needed is touched and freed right
before. For a cold load so is the page cache: the file is read, and dropped. torch and the way's
library are imported before the clock starts, and a small file is loaded once.
`FOLDER` holds the other loaders' packages.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Load = Callable[[Path], Any]


def ours(path: Path) -> Any:
    import tensorkeep

    return tensorkeep.load(path)


def ours_mapped(path: Path) -> Any:
    import tensorkeep

    return tensorkeep.load(path, mmap=True)


def torch_load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def torch_mapped(path: Path) -> Any:
    return torch.load(path, weights_only=True, mmap=True)


def safetensors_copied(path: Path) -> Any:
    """Its default maps the file: copied, so that the tensors are in private memory as ours are."""
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def safetensors_mapped(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def safetensors_pread(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path, backend="pread")


def fastsafetensors(path: Path) -> Any:
    from fastsafetensors import SafeTensorsFileLoader

    loader = SafeTensorsFileLoader(None, "cpu", nogds=True, disable_cache=False)
    loader.add_filenames({0: [str(path)]})
    buffer = loader.copy_files_to_device()
    tensors = {name: buffer.get_tensor(name) for name in loader.get_keys()}
    return tensors, buffer, loader


def runai(path: Path) -> Any:
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_file(str(path))
        # Its tensors lie in a buffer that is used again: kept, they must be copied.
        return {name: tensor.clone() for name, tensor in streamer.get_tensors()}


def dd(path: Path) -> Any:
    """No load: what the device gives to one reader that keeps nothing."""
    command = ["dd", f"if={path}", "of=/dev/null", "bs=4M", "iflag=direct"]
    return subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def tensorizer(path: Path) -> Any:
    from tensorizer import TensorDeserializer

    loaded = TensorDeserializer(str(path), device="cpu", lazy_load=False)
    return dict(loaded.items()), loaded


WAYS: dict[str, Load] = {
    each.__name__: each
    for each in (
        *(ours, ours_mapped, torch_load, torch_mapped, safetensors_copied, safetensors_mapped),
        *(safetensors_pread, fastsafetensors, runai, tensorizer, dd),
    )
}


def condition(nbytes: int) -> None:
    """Touch that much private memory and let it go, in huge pages.

    Free huge pages are what a host takes back first, and what is freed as 4 KiB pages is not whole
    again at once: the next to ask for huge pages got cold ones. For those who load into 4 KiB pages
    it is the same: taken out of huge ones just freed, or out of small ones, they cost the same.
    """
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    first = ctypes.c_char.from_buffer(memory)
    ctypes.memset(ctypes.addressof(first), 1, nbytes)
    del first
    memory.close()


def drop(path: Path) -> None:
    """Let go of the kernel's copy of the file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def main() -> None:
    way, path, folder = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    sys.path.insert(0, folder)
    load, small = WAYS[way], path.with_name("small" + path.suffix)
    load(small)
    nbytes, cold = path.stat().st_blocks * 512, "cold" in sys.argv
    if cold:
        drop(path)
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(8 << 20)
            while file.readinto(buffer):
                pass
    if nbytes > 1 << 28:
        condition(nbytes * 5 // 4)
    if cold:
        drop(path)
    began, cpu = time.perf_counter(), time.process_time()
    found = load(path)
    took = {"inside_ms": 1e3 * (time.perf_counter() - began)}
    took["inside_cpu_ms"] = 1e3 * (time.process_time() - cpu)
    assert found
    print(json.dumps(took))


if __name__ == "__main__":
    main()
