"""Builds a snapshot: passages and their vectors in, an immutable checksummed directory out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drdecr import __version__
from drdecr.corpus import SkippedLines
from drdecr.encoder.types import Encoder, EncoderSpec
from drdecr.errors import UsageError
from drdecr.index.codec import BITS, HalfCodec
from drdecr.index.manifest import (
    FORMAT_VERSION,
    FileRecord,
    Manifest,
    SegmentRecord,
    StudentRecord,
    record_file,
    write_manifest,
)
from drdecr.index.passages import PassageWriter
from drdecr.index.segment import PASSAGES
from drdecr.index.vector_file import VectorFile
from indexer.segment_writer import TOKEN_BITS, write_sentence_index, write_token_index
from indexer.sources import EncodedFile, Source, VectorSource
from indexer.spool import Spool
from indexer.staging import staged_directory

FIRST_SEGMENT = "segments/000001"


class BuildProgress(Protocol):
    """Told what a build is doing; `total` is None where nobody knows it yet."""

    def stage(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        """Begin a stage; the function returned is called with the units finished since its last call."""
        ...


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `without_tokens` passages can never be found; `truncated` ones were cut at the limit."""

    out: str
    version: str
    passages: int
    tokens: int
    lists: int
    size_bytes: int
    without_tokens: int
    truncated: int
    skipped_lines: int
    skipped_messages: list[str]
    seconds: float


def build(
    encoder: Encoder,
    passages: Path,
    out: Path,
    *,
    bits: int = 16,
    force: bool = False,
    skip_bad_lines: bool = False,
    progress: BuildProgress | None = None,
) -> BuildReport:
    """Encode a passage file and build its snapshot at `out`, which must not exist unless `force`.

    Raises: InputError for a bad passage file, UsageError for a taken `out`, ResourceError for a full disk.
    """
    skipped = SkippedLines() if skip_bad_lines else None
    return _build(EncodedFile(encoder, passages, skipped), out, bits, force, progress or Silent(), skipped)


def build_from_vectors(
    vectors: Path,
    out: Path,
    *,
    bits: int = 16,
    force: bool = False,
    sentence_weight: float | None = None,
    progress: BuildProgress | None = None,
) -> BuildReport:
    """Build a snapshot from the .npz that `drdecr encode` writes; it has ids, but no texts.

    `sentence_weight` replaces the one in the file (1 where there is none). Raises: as `build`.
    """
    source = VectorSource(VectorFile(vectors, sentence_weight=sentence_weight))
    return _build(source, out, bits, force, progress or Silent(), None)


class Silent:
    """Progress that nobody sees."""

    def stage(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        return lambda _: None


def _build(
    source: Source, out: Path, bits: int, force: bool, progress: BuildProgress, skipped: SkippedLines | None
) -> BuildReport:
    if bits not in BITS:
        raise UsageError(f"--bits must be one of {', '.join(map(str, BITS))}, got {bits}")
    started = time.monotonic()
    with staged_directory(out, force=force) as partial:
        directory = partial / FIRST_SEGMENT
        directory.mkdir(parents=True)
        segment, spool = _write_segment(directory, source, progress)
        advance = progress.stage("Hashing", None, "B")
        files = {path.name: _hashed(path, advance) for path in sorted(directory.iterdir())}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            written_by=f"drdecr {__version__}",
            student=StudentRecord.of(source.spec),
            segments=[segment.model_copy(update={"files": files})],
        )
        write_manifest(partial, manifest)
    return BuildReport(
        out=str(out),
        version=manifest.version,
        passages=manifest.passages,
        tokens=manifest.tokens,
        lists=segment.lists,
        size_bytes=manifest.size_bytes,
        without_tokens=spool.without_tokens,
        truncated=spool.truncated,
        skipped_lines=0 if skipped is None else skipped.count,
        skipped_messages=[] if skipped is None else skipped.messages,
        seconds=round(time.monotonic() - started, 3),
    )


def _write_segment(directory: Path, source: Source, progress: BuildProgress) -> tuple[SegmentRecord, Spool]:
    spec: EncoderSpec = source.spec
    codec = HalfCodec(spec.dim)
    with PassageWriter(directory / PASSAGES) as passages:
        source.store_passages(passages, progress.stage("Reading", None, "passages"))
        advance = progress.stage("Encoding", passages.count, "passages")
        with Spool(directory, spec, passages) as spool:
            for encoded in source.encoded(passages, advance):
                spool.append(encoded)
    lists = write_token_index(
        directory, spool.vectors(), codec, progress.stage("Indexing", spool.tokens, "token vectors")
    )
    spool.remove()
    sentences = write_sentence_index(directory) if spec.sentence_dim else 0
    segment = SegmentRecord(
        directory=FIRST_SEGMENT,
        passages=passages.count,
        tokens=spool.tokens,
        lists=lists,
        sentence_lists=sentences,
        token_bits=TOKEN_BITS,
        codec=codec.record,
        files={},
    )
    return segment, spool


def _hashed(path: Path, advance: Callable[[int], None]) -> FileRecord:
    record = record_file(path)
    advance(record.size_bytes)
    return record
