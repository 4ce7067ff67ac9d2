"""The manifest: what a snapshot holds, and the checksum of every byte of it.

A directory with a valid `manifest.json` is a snapshot, any other is not. The snapshot's version is the manifest's
checksum, which covers the checksums of all files, so equal versions mean equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from drdecr.encoder.types import EncoderSpec
from drdecr.errors import SnapshotCorruptError, SnapshotError
from drdecr.index.reduction import Reduction

MANIFEST = "manifest.json"
PARTIAL = ".partial"
FORMAT_VERSION = 3

_HASH_BLOCK_BYTES = 2**20


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or path == MANIFEST:
        raise ValueError(f"the path {path!r} leads out of the snapshot")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """Size and SHA-256 (hex) of a file."""

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class StudentRecord(_Record):
    """The student that encoded the passages; an empty fingerprint means that nobody knows which."""

    name: str
    fingerprint: str
    dim: int = Field(ge=1)
    sentence_dim: int = Field(ge=0)
    sentence_weight: float
    query_length: int
    passage_length: int
    closeness: float = 0.0

    @classmethod
    def of(cls, spec: EncoderSpec) -> StudentRecord:
        return cls(**{name: getattr(spec, name) for name in cls.model_fields})

    @property
    def spec(self) -> EncoderSpec:
        return EncoderSpec(**self.model_dump())


class CodecRecord(_Record):
    """How a token vector is stored; `unit` vectors are scaled to length 1 when they are decoded."""

    name: str
    bits: int = Field(ge=1)
    code_bytes: int = Field(ge=1)
    unit: bool


class TombstoneRecord(_Record):
    """The file of a segment's deleted positions, how many there are, and how many tokens those passages have."""

    path: RelativePath
    passages: int = Field(ge=1)
    tokens: int = Field(ge=0)
    file: FileRecord


class PartRecord(_Record):
    """A directory of a snapshot and its files."""

    directory: RelativePath
    files: dict[RelativePath, FileRecord]

    def paths(self) -> dict[str, FileRecord]:
        """Return every file that this part needs, by its path in the snapshot."""
        return {f"{self.directory}/{name}": record for name, record in self.files.items()}


class QuantizerRecord(PartRecord):
    """Centroids and trained codec, which segments share.

    `residual` is the mean squared distance from their centroids of the `tokens` that it was trained for.
    """

    lists: int = Field(ge=1)
    codec: CodecRecord
    tokens: int = Field(default=0, ge=0)
    residual: float | None = Field(default=None, ge=0)

    @property
    def contents(self) -> str:
        """What two quantisers share when they are the same, wherever they lie."""
        return self.model_copy(update={"directory": "."}).model_dump_json()


class SegmentRecord(PartRecord):
    """An immutable part of a snapshot: its sizes, the directory of its quantiser, and what of it was deleted.

    Positions in the snapshot count through the segments in their order. `residual` is the mean squared distance of
    the tokens from their centroids. `windows` is 0 where each passage is one window.
    """

    quantizer: RelativePath
    passages: int = Field(ge=0)
    tokens: int = Field(ge=0)
    sentence_lists: int = Field(ge=0)
    windows: int = Field(default=0, ge=0)
    residual: float | None = Field(default=None, ge=0)
    tombstones: TombstoneRecord | None = None

    @property
    def deleted(self) -> int:
        return 0 if self.tombstones is None else self.tombstones.passages

    @property
    def live_tokens(self) -> int:
        return self.tokens - (0 if self.tombstones is None else self.tombstones.tokens)

    def paths(self) -> dict[str, FileRecord]:
        tombstones = {} if self.tombstones is None else {self.tombstones.path: self.tombstones.file}
        return {**PartRecord.paths(self), **tombstones}


class Manifest(_Record):
    """All that a reader must know before it opens a file; `version` is not stored twice but derived.

    A change publishes a new generation; a build's is the first. `passages` and `tokens` count the deleted too.
    A `reduction` makes it format 2: a program that knows only format 1 would search with vectors of another space. A
    student's `closeness` makes it format 3: an older program would score otherwise.
    """

    format_version: int
    written_by: str
    student: StudentRecord
    reduction: Reduction = Reduction()
    quantizers: list[QuantizerRecord]
    segments: list[SegmentRecord]
    generation: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _quantizers_are_here(self) -> Self:
        here = {quantizer.directory for quantizer in self.quantizers}
        for segment in self.segments:
            if segment.quantizer not in here:
                raise ValueError(f"{segment.directory} names the quantiser {segment.quantizer}, which is not listed")
        return self

    @property
    def dim(self) -> int:
        """The dimensions of the stored token vectors."""
        return self.reduction.width(self.student.dim)

    @property
    def parts(self) -> list[PartRecord]:
        """All that has files."""
        return [*self.quantizers, *self.segments]

    @property
    def passages(self) -> int:
        return sum(segment.passages for segment in self.segments)

    @property
    def deleted(self) -> int:
        return sum(segment.deleted for segment in self.segments)

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def size_bytes(self) -> int:
        return sum(record.size_bytes for record in self.paths().values())

    @property
    def version(self) -> str:
        return _checksum(_record_of(self))

    def paths(self) -> dict[str, FileRecord]:
        """Return every file that the snapshot needs, by its path in the snapshot."""
        return {path: record for part in self.parts for path, record in part.paths().items()}


def format_of(reduction: Reduction, closeness: float) -> int:
    """Return the oldest format that can say what a snapshot holds, so that older programs read what they can."""
    return 3 if closeness else 2 if reduction else 1


def write_manifest(directory: Path, manifest: Manifest, *, name: str = MANIFEST) -> None:
    """Write the manifest by atomic rename, so that it is there whole or not at all."""
    path = directory / name
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("w", encoding="utf-8") as file:
        file.write(render_manifest(manifest))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync_path(path.parent)


def read_manifest(directory: Path, *, name: str = MANIFEST) -> Manifest:
    """Read and check a snapshot's manifest; `name` may be that of an earlier generation.

    Raises: SnapshotError for a directory that is no snapshot or of a newer format, SnapshotCorruptError for a
    manifest whose bytes were changed.
    """
    path = directory / name
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise SnapshotError(
            f"{directory} is not a snapshot (no {MANIFEST}); make one with `drdecr index build`"
        ) from None
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: object) -> Manifest:
    """Check the bytes of a manifest, which lie at `path`. Raises: as `read_manifest`."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise SnapshotCorruptError(f"{path} is damaged (not UTF-8); build the snapshot again") from None
    try:
        record = json.loads(text)
        stored = record.pop("checksum")
        found_format = record["format_version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SnapshotCorruptError(f"{path} is damaged (not a manifest); build the snapshot again") from None
    if isinstance(found_format, int) and found_format > FORMAT_VERSION:
        raise SnapshotError(
            f"{path} has format {found_format}, this program reads up to {FORMAT_VERSION}; upgrade drdecr"
        )
    # Comparing the rendered text too finds changes that JSON does not see, such as in white space.
    if stored != _checksum(record) or text != _text_of({**record, "checksum": stored}):
        raise SnapshotCorruptError(f"{path} is damaged (its checksum differs); build the snapshot again")
    try:
        return Manifest.model_validate(record)
    except ValidationError as problem:
        detail = problem.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        raise SnapshotError(f"{path} cannot be used: {place}: {detail['msg']}") from None


def record_file(path: Path) -> FileRecord:
    """Hash a file."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return FileRecord(size_bytes=size, sha256=digest.hexdigest())


def sync_path(path: Path) -> None:
    """Make the contents of a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Make all files and names below a directory durable."""
    for path in sorted(directory.rglob("*"), reverse=True):
        sync_path(path)
    sync_path(directory)


def _record_of(manifest: Manifest) -> dict[str, object]:
    # Fields younger than format 1 have defaults, and are left out where they hold them: what an older program wrote
    # keeps its version.
    return manifest.model_dump(mode="json", exclude_defaults=True)


def render_manifest(manifest: Manifest) -> str:
    """Return the text of a manifest's file."""
    record = _record_of(manifest)
    return _text_of({**record, "checksum": _checksum(record)})


def _text_of(record: dict[str, object]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _checksum(record: dict[str, object]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
