"""What archives of model files share, zip and tar: which member is a model, and how it is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tensorkeep.formats.contents import Code, Contents, Graft, Parts, plain
from tensorkeep.stores.memory import MemoryBlob

HEAD = 512
# What a member of such a name is, if its bytes do not say: a model that must not be passed over.
_MODELS = (
    ".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pkl", ".pickle", ".joblib", ".pt2", ".npy",
    ".npz", ".gguf", ".h5", ".hdf5", ".keras", ".onnx", ".nemo", ".mar", ".dill",
)  # fmt: skip
# ELF, PE, Mach-O (both orders, 32 and 64 bits, fat), static libraries.
_COMPILED = (
    b"\x7fELF", b"MZ", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>\n",
)  # fmt: skip
_CONFIGS = (".yaml", ".yml", ".json")
_LONGEST_CONFIG = 4 << 20
# What hydra and NeMo call when they build a model from its configuration.
_TARGET = re.compile(r"""["']?_target_["']?[ \t]*:[ \t]*["']?([A-Za-z_][\w.]{0,300})""")


def is_model(name: str, head: bytes, parts: Parts) -> bool:
    """Whether a member is a model file, by its name or by its first bytes."""
    if named_model(name):
        return True
    return bool(head) and parts.recognises(MemoryBlob(head, name))


def named_model(name: str) -> bool:
    """Whether a member's name says that it is a model."""
    return name.lower().endswith(_MODELS)


def is_compiled(name: str, head: bytes) -> bool:
    """Whether a file of this name that begins so is compiled code."""
    return head.startswith(_COMPILED) or name.lower().endswith((".pyc", ".so", ".dll", ".dylib"))


def is_config(name: str, size: int) -> bool:
    """Whether a member may be the configuration that a model is built from."""
    return name.lower().endswith(_CONFIGS) and size <= _LONGEST_CONFIG


def config_code(where: str, data: bytes) -> Code | None:
    """What a configuration asks its loader to call; None if that is nothing."""
    targets = dict.fromkeys(_TARGET.findall(data.decode("utf-8", "replace")))
    lines = [f"config {json.dumps(target)}" for target in targets]
    return Code(where, "exported", "\n".join(lines)) if lines else None


def show(contents: Contents) -> None:
    """Show the files that are nested in an archive: the only one as the checkpoint itself,
    several as sections of their names.
    """
    storages = dict(contents.storages)
    for name, held in contents.nested:
        for storage in held.storages.values():
            storage.key = f"{name}:{storage.key}"
            storages[storage.key] = storage
    contents.storages = storages
    contents.parts = [name for name, _ in contents.nested]
    contents.notes = [note for _, held in contents.nested for note in held.notes]
    contents.digests = contents.digests or any(held.digests for _, held in contents.nested)
    own = contents.verify
    contents.verify = lambda: _verify(own(), contents)
    if len(contents.nested) == 1 and not contents.unreadable:
        only = contents.nested[0][1]
        contents.root, contents.lens, contents.error = only.root, only.lens, only.error
        contents.metadata, contents.aliases = dict(only.metadata), only.aliases
        return
    contents.root = {name: Graft(held) for name, held in contents.nested}
    contents.lens = plain
    if contents.unreadable and not contents.nested:
        contents.error = contents.unreadable[0][1]


def _verify(
    own: Iterator[tuple[str, str, str, str]], contents: Contents
) -> Iterator[tuple[str, str, str, str]]:
    yield from own
    for name, held in contents.nested:
        for member, tensor, expected, got in held.verify():
            yield f"{name}: {member}", f"{name}:{tensor}" if tensor else "", expected, got
