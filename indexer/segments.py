"""Writes whole segments: from a source, the same for a build and for an add, or from the passages of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import EncoderSpec
from drdecr.index.manifest import FileRecord, QuantizerRecord, SegmentRecord, record_file
from drdecr.index.passages import PassageWriter
from drdecr.index.quantizer import Quantizer
from drdecr.index.segment import CELLS, PASSAGES
from indexer.drift import mean_residual
from indexer.progress import Progress
from indexer.quantizer_training import train_quantizer
from indexer.segment_writer import (
    Part,
    copy_sentences,
    copy_tokens,
    copy_windows,
    write_sentence_index,
    write_token_index,
)
from indexer.sources import Source
from indexer.spool import Spool

_COPIED_PASSAGES = 1000


@dataclass(frozen=True, slots=True)
class NewQuantizer:
    """A quantiser to be trained on the tokens of the segment that is written, in an empty or new directory."""

    directory: str
    bits: int


Choose = Callable[[int], QuantizerRecord | NewQuantizer]
"""Names the quantiser of a segment, by how many tokens it has."""


@dataclass(frozen=True, slots=True)
class WrittenSegment:
    """A segment on disk. `without_tokens` passages can never be found; the ends of `truncated` ones are not in it."""

    record: SegmentRecord
    quantizer: QuantizerRecord
    without_tokens: int
    truncated: int


def write_segment(root: Path, name: str, source: Source, choose: Choose, progress: Progress) -> WrittenSegment:
    """Write the passages of a source, and their vectors, into the empty directory `name` of a snapshot."""
    directory = root / name
    spec: EncoderSpec = source.spec
    with PassageWriter(directory / PASSAGES) as passages:
        source.store_passages(passages, progress.stage("Reading", None, "passages"))
        advance = progress.stage(source.doing, passages.count, "passages")
        with Spool(directory, spec, passages, source.reduction.width(spec.dim)) as spool:
            for encoded in source.encoded(passages, advance):
                spool.append(encoded)
    vectors = spool.vectors()
    advance = progress.stage("Indexing", spool.tokens, "token vectors")
    chosen = choose(spool.tokens)
    if isinstance(chosen, NewQuantizer):
        record = train_quantizer(root, chosen.directory, vectors, chosen.bits)
    else:
        record = chosen
    quantizer = Quantizer(root, record, source.reduction.width(spec.dim))
    write_token_index(directory, vectors, quantizer, advance)
    residual = mean_residual(vectors, np.load(directory / CELLS, mmap_mode="r"), quantizer)
    spool.remove()
    sentences = write_sentence_index(directory) if spec.sentence_dim else 0
    if isinstance(chosen, NewQuantizer):
        files = hash_files(root / record.directory, progress)
        record = record.model_copy(update={"files": files, "tokens": spool.tokens, "residual": residual})
    segment = SegmentRecord(
        directory=name,
        quantizer=record.directory,
        passages=passages.count,
        tokens=spool.tokens,
        sentence_lists=sentences,
        windows=spool.windows if spool.windows > passages.count else 0,
        residual=residual,
        files=hash_files(directory, progress),
    )
    return WrittenSegment(segment, record, spool.without_tokens, spool.truncated)


def copy_segment(
    root: Path, name: str, parts: Sequence[Part], quantizer: QuantizerRecord, progress: Progress
) -> SegmentRecord:
    """Write the kept passages of segments into the empty directory `name`; their codes are copied as they are.

    All parts have the quantiser of their first, which `quantizer` describes in the snapshot at `root`.
    """
    directory = root / name
    with PassageWriter(directory / PASSAGES) as passages:
        copy_passages(passages, parts, progress.stage("Copying", sum(len(kept) for _, kept in parts), "passages"))
    shared = parts[0][0].quantizer
    kept_tokens = [_tokens_of(part) for part in parts]
    tokens = copy_tokens(directory, parts, shared, progress.stage("Copying", sum(kept_tokens), "token vectors"))
    sentences = copy_sentences(directory, parts) if parts[0][0].sentence_dim else 0
    return SegmentRecord(
        directory=name,
        quantizer=quantizer.directory,
        passages=passages.count,
        tokens=tokens,
        sentence_lists=sentences,
        windows=copy_windows(directory, parts),
        residual=pooled_residual([segment.record.residual for segment, _ in parts], kept_tokens),
        files=hash_files(directory, progress),
    )


def copy_passages(writer: PassageWriter, parts: Sequence[Part], advance: Callable[[int], None]) -> None:
    """Append the kept passages of segments, with their spans."""
    for segment, kept in parts:
        for start in range(0, len(kept), _COPIED_PASSAGES):
            positions = kept[start : start + _COPIED_PASSAGES].tolist()
            first = writer.count
            writer.add(segment.store.read(positions))
            spans = segment.store.spans_of(positions)
            writer.add_spans(
                (at, spans[position]) for at, position in enumerate(positions, start=first) if position in spans
            )
            advance(len(positions))


def hash_files(directory: Path, progress: Progress) -> dict[str, FileRecord]:
    """Hash every file of a finished part."""
    advance = progress.stage("Hashing", None, "B")
    files = {}
    for path in sorted(directory.iterdir()):
        files[path.name] = record_file(path)
        advance(files[path.name].size_bytes)
    return files


def _tokens_of(part: Part) -> int:
    segment, kept = part
    return int(segment.lengths_of(kept).sum())


def pooled_residual(residuals: Sequence[float | None], tokens: Sequence[int]) -> float | None:
    """Return the mean residual of segments with so many tokens; None where one is not known."""
    known: NDArray[np.float64] = np.array([np.nan if each is None else each for each in residuals])
    if not sum(tokens) or np.isnan(known[np.array(tokens) > 0]).any():
        return None
    return float(np.nansum(known * tokens) / sum(tokens))
