"""Builds a snapshot: passages and their vectors in, an immutable checksummed directory out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from drdecr import __version__
from drdecr.corpus import SkippedLines
from drdecr.encoder.types import Encoder
from drdecr.errors import UsageError
from drdecr.index.codec import BITS
from drdecr.index.manifest import Manifest, StudentRecord, format_of, write_manifest
from drdecr.index.reduction import reduction_of
from drdecr.index.vector_file import VectorFile
from indexer.progress import SILENT, Progress
from indexer.segments import NewQuantizer, write_segment
from indexer.sources import EncodedFile, Source, VectorSource
from indexer.staging import staged_directory

FIRST_SEGMENT = "segments/000001"
FIRST_QUANTIZER = "quantizers/000001"


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `without_tokens` passages can never be found; the ends of `truncated` ones are not in it."""

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
    dims: int | None = None,
    pool: float = 1.0,
    force: bool = False,
    skip_bad_lines: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Encode a passage file and build its snapshot at `out`, which must not exist unless `force`.

    `dims` keeps the first dimensions of each token vector, `pool` about one of so many token vectors of a passage.
    Raises: InputError for a bad passage file, UsageError for a taken `out` or for what the student cannot give,
    ResourceError for a full disk.
    """
    skipped = SkippedLines() if skip_bad_lines else None
    reduction = reduction_of(dims, pool, encoder.spec.dim, encoder.spec.name)
    return _build(EncodedFile(encoder, passages, skipped, reduction), out, bits, force, progress or SILENT, skipped)


def build_from_vectors(
    vectors: Path,
    out: Path,
    *,
    bits: int = 16,
    dims: int | None = None,
    pool: float = 1.0,
    force: bool = False,
    sentence_weight: float | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a snapshot from the .npz that `drdecr encode` writes; it has ids, but no texts.

    `sentence_weight` replaces the one in the file (1 where there is none). Raises: as `build`.
    """
    file = VectorFile(vectors, sentence_weight=sentence_weight)
    reduction = reduction_of(dims, pool, file.spec.dim, file.spec.name)
    return _build(VectorSource(file, reduction), out, bits, force, progress or SILENT, None)


def build_from_source(source: Source, out: Path, bits: int, progress: Progress = SILENT) -> BuildReport:
    """Build a snapshot of a source's passages at `out`, which must not exist. Raises: as `build`."""
    return _build(source, out, bits, False, progress, None)


def _build(
    source: Source, out: Path, bits: int, force: bool, progress: Progress, skipped: SkippedLines | None
) -> BuildReport:
    if bits not in BITS:
        raise UsageError(f"--bits must be one of {', '.join(map(str, BITS))}, got {bits}")
    started = time.monotonic()
    with staged_directory(out, force=force) as partial:
        (partial / FIRST_SEGMENT).mkdir(parents=True)
        written = write_segment(
            partial, FIRST_SEGMENT, source, lambda _: NewQuantizer(FIRST_QUANTIZER, bits), progress
        )
        manifest = Manifest(
            format_version=format_of(source.reduction, source.spec.closeness),
            written_by=f"drdecr {__version__}",
            student=StudentRecord.of(source.spec),
            reduction=source.reduction,
            quantizers=[written.quantizer],
            segments=[written.record],
        )
        write_manifest(partial, manifest)
    return BuildReport(
        out=str(out),
        version=manifest.version,
        passages=manifest.passages,
        tokens=manifest.tokens,
        lists=written.quantizer.lists,
        size_bytes=manifest.size_bytes,
        without_tokens=written.without_tokens,
        truncated=written.truncated,
        skipped_lines=0 if skipped is None else skipped.count,
        skipped_messages=[] if skipped is None else skipped.messages,
        seconds=round(time.monotonic() - started, 3),
    )
