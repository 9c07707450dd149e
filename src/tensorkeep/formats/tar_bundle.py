"""Tar archives of model files: a .nemo, a folder of checkpoints packed with tar.

Sources: NeMo 2 (`SaveRestoreConnector`: a tar, packed with gzip or not, of `model_config.yaml`,
`model_weights.ckpt` and what the model needs beside them). Each member that is a model file is a
file of its own, read where it lies.
"""

from __future__ import annotations

from collections.abc import Iterator

from tensorkeep.archives import tar
from tensorkeep.archives.tar import TarArchive, TarMember
from tensorkeep.errors import NotACheckpoint, TensorkeepError
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats._members import (
    HEAD,
    config_code,
    is_compiled,
    is_config,
    is_model,
    named_model,
    show,
)
from tensorkeep.formats._zip_reading import goes_on, is_program
from tensorkeep.formats.contents import Code, Contents, Parts, plain
from tensorkeep.pickles import Program, run
from tensorkeep.stores import Blob

NAME = "bundle"
SUFFIXES: tuple[str, ...] = (".tar", ".nemo")
_CHUNK = 1 << 20


def identify(blob: Blob, head: bytes) -> bool:
    """Whether this is a tar archive at all; torch's own old one is asked for before."""
    return tar.is_tar(head)


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The checkpoints in `blob`. Raises `NotACheckpoint` if there is nothing of a model."""
    return _Tar(tar.read_directory(blob, limits), limits, parts).read()


class _Tar:
    def __init__(self, archive: TarArchive, limits: Limits, parts: Parts) -> None:
        self.archive = archive
        self.limits = limits
        self.parts = parts
        self.nested: list[tuple[str, Contents]] = []
        self.unreadable: list[tuple[str, TensorkeepError]] = []
        self.programs: list[tuple[str, Program]] = []
        self.code: list[Code] = []
        self.rest: list[TarMember] = []

    def read(self) -> Contents:
        for member in self.archive.members:
            if member.kind == "file" and member.size:
                self._member(member)
        if not (self.nested or self.unreadable):
            self._look()
        if not (self.nested or self.unreadable or self.programs):
            raise NotACheckpoint(
                self.archive.blob.name,
                expected="a checkpoint",
                got="a tar archive without a model in it",
                remedy="Check that this is the file you mean.",
            )
        contents = Contents(
            format=NAME,
            container="tar",
            root={},
            lens=plain,
            storages={},
            programs=self.programs,
            nested=self.nested,
            unreadable=self.unreadable,
            anomalies=self.archive.anomalies,
            audit=self._audit,
            code=lambda: self.code,
        )
        show(contents)
        return contents

    def _member(self, member: TarMember) -> None:
        blob, name = self.archive.open(member), member.name
        head = blob.read(0, min(HEAD, blob.size))
        if name.lower().endswith(".py"):
            text = blob.read(0, min(blob.size, self.limits.max_json_bytes))
            self.code.append(Code(name, "python", text.decode("utf-8", "replace")))
        elif is_model(name, head, self.parts):
            self._nest(member)
        elif is_compiled(name, head):
            self.code.append(Code(name, "native", ""))
        else:
            self._other(member, blob)

    def _other(self, member: TarMember, blob: Blob) -> None:
        if is_config(member.name, member.size):
            code = config_code(member.name, blob.read(0, blob.size))
            if code is not None:
                self.code.append(code)
        self.rest.append(member)

    def _nest(self, member: TarMember) -> None:
        blob = self.archive.open(member)
        blob.name = f"{self.archive.blob.name}, {member.name}"
        try:
            self.nested.append((member.name, self.parts.examine(blob)))
        except TensorkeepError as error:
            if named_model(member.name) or not isinstance(error, NotACheckpoint):
                self.unreadable.append((member.name, error))

    def _audit(self, _deep: bool) -> Iterator[Anomaly]:
        self._look()
        yield from list(self.archive.anomalies)

    def _look(self) -> None:
        """At the members that are no model by name or magic: pickles are judged all the same."""
        for member in self.rest:
            blob = self.archive.open(member)
            head = blob.read(0, min(blob.size, _CHUNK))
            if blob.size > _CHUNK and goes_on(head, self.limits):
                head = blob.read(0, min(blob.size, self.limits.max_pickle_bytes))
            if is_program(head, self.limits):
                what = "a pickle in a member whose name and beginning are no model's"
                anomaly = Anomaly("nested-pickle", what, member.name, member.offset)
                self.archive.anomalies.append(anomaly)
                whole = blob.read(0, min(blob.size, self.limits.max_pickle_bytes))
                program = run(whole, limits=self.limits, where=member.name)
                self.programs.append((member.name, program))
        self.rest = []
