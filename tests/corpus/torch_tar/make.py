"""torch's oldest files, put together as its loader reads them.

python tests/corpus/torch_tar/make.py

No torch writes them any more. What is made here is loaded by torch itself before it is kept.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

NAME = "model.pth"


def packed(members, format=tarfile.PAX_FORMAT):
    """A tar archive of names and bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def members(value, tensors, views=(), protocol=2):
    """The four members for `value`, in which the `tensors` (a list) lie; their storages first.

    `views` are storages that are a stretch of another: (key, root's index, offset, length).
    """
    import torch

    def dump(thing):
        return pickle.dumps(thing, protocol)

    roots, storages = {}, b""
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage._cdata not in roots:
            roots[storage._cdata] = key = 1000 + len(roots)
            kind = getattr(torch, torch.storage._dtype_to_storage_type_map()[tensor.dtype])
            count = storage.nbytes() // tensor.element_size()
            storages += dump((key, "cpu", kind)) + struct.pack("<q", count) + bytes(storage)
    listed = [(key, 1000 + root, offset, length) for key, root, offset, length in views]
    body, keys = b"", {}
    for number, tensor in enumerate(tensors):
        keys[id(tensor)] = str(number)
        body += dump((number, roots[tensor.untyped_storage()._cdata], torch.FloatTensor))
        body += struct.pack("<i4x", tensor.dim())
        body += struct.pack(f"<{2 * tensor.dim()}q", *tensor.shape, *tensor.stride())
        body += struct.pack("<q", tensor.storage_offset())

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return keys.get(id(thing)) if isinstance(thing, torch.Tensor) else None

    file = io.BytesIO()
    Pickler(file, protocol).dump(value)
    return {
        "sys_info": dump({"protocol_version": 1000, "little_endian": True}),
        "pickle": file.getvalue(),
        "tensors": dump(len(tensors)) + body,
        "storages": dump(len(roots)) + storages + dump(listed),
    }


def case(name, value, tensors, expected, **options):
    import torch
    from making import keep

    def write(folder):
        (folder / NAME).write_bytes(packed(members(value, tensors, **options)))

    def check(path):
        torch.load(path, weights_only=False)

    keep(HERE / name, write, expected, NAME, check)


def main():
    import torch

    def bits(tensor):
        return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

    base = torch.arange(24, dtype=torch.float32)
    values = {"weight": base.view(4, 6), "turned": base.view(4, 6).t(), "part": base[3:9]}
    expected = {key: bits(tensor) for key, tensor in values.items()}
    case("views", values, list(values.values()), expected)
    several = {"a": torch.ones(3, dtype=torch.float64), "b": torch.arange(4), "epoch": 2}
    tensors = [several["a"], several["b"]]
    case("types", several, tensors, {key: bits(several[key]) for key in "ab"})
    case("protocol_4", {"w": base}, [base], {"w": bits(base)}, protocol=4)


if __name__ == "__main__":
    main()
