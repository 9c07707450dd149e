"""Archives of model files: a .mar, a .nemo, a zip of several checkpoints, a zip in a zip.

Sources: torch-model-archiver 0.12 (a zip with `MAR-INF/MANIFEST.json`, the serialised model, its
handler in Python and extra files). Each member that is a model file is a file of its own, read
where it lies; a packed one is unpacked into memory.
"""

from __future__ import annotations

from tensorkeep.archives.zip import ZipArchive, ZipMember
from tensorkeep.errors import NotACheckpoint
from tensorkeep.facts import Limits
from tensorkeep.formats._zip_reading import ZipReading
from tensorkeep.formats.contents import Code, Contents, Graft, Parts, plain
from tensorkeep.stores.memory import MemoryBlob

NAME = "bundle"
SUFFIXES: tuple[str, ...] = (".zip", ".mar")
_HEAD = 512
_MANIFEST = "MAR-INF/MANIFEST.json"
# What a member of such a name is, if its bytes do not say: a model that must not be passed over.
_MODELS = (
    ".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pkl", ".pickle", ".joblib", ".pt2", ".npy",
    ".npz", ".gguf", ".h5", ".hdf5", ".keras", ".onnx", ".nemo", ".mar", ".dill",
)  # fmt: skip


def claims(archive: ZipArchive) -> bool:
    """Any zip: it is asked last."""
    return True


def read_archive(archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
    """The checkpoints in `archive`. Raises `NotACheckpoint` if there is nothing of a model."""
    reading = ZipReading(archive, limits, parts)
    sources = []
    for member in archive.members:
        if member.name.lower().endswith(".py"):
            sources.append(member)
        elif member.size and _is_model(reading, member):
            reading.nest(member)
    if not (reading.nested or reading.unreadable):
        reading.look_at_all()
    if not (reading.nested or reading.unreadable or reading.programs or _manifest(archive)):
        raise NotACheckpoint(
            archive.blob.name,
            expected="a checkpoint",
            got="a zip without a model in it",
            remedy="Check that this is the file you mean.",
        )
    return _contents(reading, sources)


def _is_model(reading: ZipReading, member: ZipMember) -> bool:
    if member.name.lower().endswith(_MODELS):
        return True
    return reading.parts.recognises(MemoryBlob(reading.peek(member, _HEAD), member.name))


def _manifest(archive: ZipArchive) -> bool:
    return archive.holds(_MANIFEST)


def _contents(reading: ZipReading, sources: list[ZipMember]) -> Contents:
    for name, inside in reading.nested:
        for storage in inside.storages.values():
            storage.key = f"{name}:{storage.key}"
            reading.storages[storage.key] = storage
    code = [Code(m.name, "python", reading.data(m).decode("utf-8", "replace")) for m in sources]
    contents = reading.contents(NAME, {n: Graft(held) for n, held in reading.nested}, plain)
    contents.parts = [name for name, _ in reading.nested]
    contents.notes = [note for _, held in reading.nested for note in held.notes]
    contents.code = lambda: code
    if len(reading.nested) == 1 and not reading.unreadable:
        _take(contents, reading.nested[0][1])
    elif reading.unreadable and not reading.nested:
        contents.error = reading.unreadable[0][1]
    return contents


def _take(contents: Contents, only: Contents) -> None:
    """Show the only model in an archive as the checkpoint itself."""
    contents.root, contents.lens, contents.error = only.root, only.lens, only.error
    contents.metadata, contents.aliases = dict(only.metadata), only.aliases
