"""Changes a snapshot while it serves: adds passages, deletes them, takes a change back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drdecr.corpus import SkippedLines
from drdecr.encoder.types import Encoder
from drdecr.errors import InputError, SnapshotCorruptError, SnapshotError
from drdecr.index.compatibility import require_student, require_vectors
from drdecr.index.manifest import Manifest, QuantizerRecord, SegmentRecord
from drdecr.index.passages import PassageStore
from drdecr.index.segment import PASSAGES
from drdecr.index.snapshot import find_damage
from drdecr.index.tombstones import read_live
from drdecr.index.vector_file import VectorFile
from indexer.generations import KEPT, Draft, changed_snapshot, earlier_generations
from indexer.progress import SILENT, Progress
from indexer.segments import NewQuantizer, WrittenSegment, write_segment
from indexer.sources import EncodedFile, Source, VectorSource
from indexer.tiers import OUTGROWN, merge_newest

_BATCH_IDS = 10_000
_NAMED_IDS = 10


@dataclass(frozen=True, slots=True)
class ChangeReport:
    """What a change did, and the snapshot that it left.

    `replaced` of the `added` passages took the place of one with the same id; `passages` are those that can be found.
    """

    snapshot: str
    version: str
    generation: int
    added: int
    replaced: int
    deleted: int
    missing: list[str]
    passages: int
    segments: int
    without_tokens: int
    truncated: int
    skipped_lines: int
    skipped_messages: list[str]
    seconds: float


def add(
    snapshot: Path,
    encoder: Encoder,
    passages: Path,
    *,
    skip_bad_lines: bool = False,
    keep: int = KEPT,
    progress: Progress = SILENT,
) -> ChangeReport:
    """Encode a passage file and add it to a snapshot; a passage whose id is there replaces the old one.

    Keeps `keep` earlier generations for `rollback`.
    Raises: ModelMismatchError for another student, InputError for a bad passage file, SnapshotBusyError while another
    process changes the snapshot, ResourceError for a full disk. Then the snapshot is as it was.
    """
    skipped = SkippedLines() if skip_bad_lines else None

    def open_source(manifest: Manifest) -> Source:
        require_student(encoder.spec, manifest.student.spec, snapshot)
        return EncodedFile(encoder, passages, skipped, manifest.reduction)

    return _add(snapshot, open_source, keep, progress, skipped)


def add_vectors(snapshot: Path, vectors: Path, *, keep: int = KEPT, progress: Progress = SILENT) -> ChangeReport:
    """Add the .npz that `drdecr encode` writes; its passages have ids, but no texts. Raises: as `add`."""
    file = VectorFile(vectors)

    def open_source(manifest: Manifest) -> Source:
        require_vectors(file.spec, manifest.student.spec, snapshot)
        return VectorSource(file, manifest.reduction)

    return _add(snapshot, open_source, keep, progress, None)


def delete(snapshot: Path, ids: Iterable[str], *, missing_ok: bool = False, keep: int = KEPT) -> ChangeReport:
    """Delete passages by id.

    Raises: InputError that names ids which are not there, unless `missing_ok`, and deletes nothing then;
    SnapshotBusyError and ResourceError as `add`.
    """
    started = time.monotonic()
    wanted = list(dict.fromkeys(ids))
    for each in wanted:
        try:
            each.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"the id {each!r} is not UTF-8 text, so no passage has it; nothing was deleted"
            ) from None
    with changed_snapshot(snapshot, "delete", keep=keep) as draft:
        found = _bury(draft, wanted, len(draft.segments))
        missing = [each for each in wanted if each not in found]
        if missing and not missing_ok:
            raise InputError(
                f"{snapshot} holds no passage {named(missing)}; nothing was deleted (--missing-ok passes over them)"
            )
    return report_change(draft, started, deleted=len(found), missing=missing)


def rollback(snapshot: Path, *, to: int | None = None, keep: int = KEPT) -> ChangeReport:
    """Take changes back: publish the generation `to` again (else the one before) as a new generation.

    What was taken back is an earlier generation then, unless it is damaged: a rollback can itself be rolled back.
    Raises: SnapshotError where that generation is not kept, or is damaged; SnapshotBusyError.
    """
    started = time.monotonic()
    with changed_snapshot(snapshot, "rollback", keep=keep, damaged_too=True) as draft:
        kept = {manifest.generation: manifest for manifest in earlier_generations(snapshot, draft.manifest)}
        chosen = max(kept, default=0) if to is None else to
        if chosen not in kept:
            known = ", ".join(map(str, sorted(kept))) or "none"
            wish = "no earlier generation" if to is None else f"no generation {to}"
            raise SnapshotError(f"{snapshot} keeps {wish} to go back to; kept are: {known}")
        if damage := find_damage(snapshot, kept[chosen], hashes=True):
            raise SnapshotCorruptError(f"generation {chosen} of {snapshot} is damaged: {'; '.join(damage)}")
        draft.forget = bool(find_damage(snapshot, draft.manifest, hashes=True, known=kept[chosen]))
        draft.segments = list(kept[chosen].segments)
        draft.quantizers = list(kept[chosen].quantizers)
    return report_change(draft, started)


def _add(
    snapshot: Path,
    open_source: Callable[[Manifest], Source],
    keep: int,
    progress: Progress,
    skipped: SkippedLines | None,
) -> ChangeReport:
    started = time.monotonic()
    with changed_snapshot(snapshot, "add", keep=keep) as draft:
        written, replaced = _append(draft, open_source(draft.manifest), progress)
        if written.record.passages:
            merge_newest(draft, progress)
    return report_change(
        draft,
        started,
        added=written.record.passages,
        replaced=replaced,
        without_tokens=written.without_tokens,
        truncated=written.truncated,
        skipped_lines=0 if skipped is None else skipped.count,
        skipped_messages=[] if skipped is None else skipped.messages,
    )


def apply_changes(draft: Draft, source: Source, deletes: Iterable[Sequence[str]], progress: Progress) -> int:
    """Add a source's passages to a draft and delete others by id; return how many of those were there."""
    older = len(draft.segments)
    written, _ = _append(draft, source, progress)
    deleted = sum(len(_bury(draft, ids, older)) for ids in deletes)
    if written.record.passages:
        merge_newest(draft, progress)
    return deleted


def _append(draft: Draft, source: Source, progress: Progress) -> tuple[WrittenSegment, int]:
    """Write a segment of a source's passages; return it, and how many passages with their ids it replaces."""
    older = len(draft.segments)
    written = write_segment(draft.root, draft.new_segment(), source, partial(_quantizer_for, draft), progress)
    replaced = 0
    if written.record.passages:
        draft.segments.append(written.record)
        if written.quantizer not in draft.quantizers:
            draft.quantizers.append(written.quantizer)
        advance = progress.stage("Replacing", written.record.passages, "passages")
        for ids in ids_of(draft.root, written.record):
            replaced += len(_bury(draft, ids, older))
            advance(len(ids))
    return written, replaced


def _bury(draft: Draft, ids: Sequence[str], segments: int) -> dict[str, int]:
    """Delete the living passages of these ids from the first `segments` segments; return each one's segment."""
    found: dict[str, int] = {}
    for number, segment in enumerate(draft.segments[:segments]):
        live = read_live(draft.root, segment)
        with closing(PassageStore(draft.root / segment.directory / PASSAGES)) as store:
            stored = store.positions(ids)
        positions = {each: at for each, at in stored.items() if live is None or live[at]}
        if positions:
            draft.bury(number, positions.values())
            found.update(dict.fromkeys(positions, number))
    return found


def ids_of(snapshot: Path, segment: SegmentRecord) -> Iterator[list[str]]:
    """Yield the ids of a segment's passages, a batch at a time."""
    with closing(PassageStore(snapshot / segment.directory / PASSAGES)) as store:
        for start in range(0, segment.passages, _BATCH_IDS):
            yield store.ids(range(start, min(start + _BATCH_IDS, segment.passages)))


def _quantizer_for(draft: Draft, tokens: int) -> QuantizerRecord | NewQuantizer:
    """Share the quantiser that was trained for the most tokens, unless these are many more than those."""
    largest = max(draft.quantizers, key=lambda quantizer: quantizer.tokens)
    if largest.tokens and tokens <= OUTGROWN * largest.tokens:
        return largest
    return NewQuantizer(draft.new_quantizer(), largest.codec.bits)


def named(ids: Sequence[str]) -> str:
    """Name ids in a message, the first of many."""
    more = f" and {len(ids) - _NAMED_IDS} more" if len(ids) > _NAMED_IDS else ""
    return ", ".join(repr(each) for each in ids[:_NAMED_IDS]) + more


def report_change(
    draft: Draft,
    started: float,
    *,
    added: int = 0,
    replaced: int = 0,
    deleted: int = 0,
    missing: Sequence[str] = (),
    without_tokens: int = 0,
    truncated: int = 0,
    skipped_lines: int = 0,
    skipped_messages: Sequence[str] = (),
) -> ChangeReport:
    """Describe a change that has ended."""
    manifest = draft.result
    return ChangeReport(
        snapshot=str(draft.root),
        version=manifest.version,
        generation=manifest.generation,
        added=added,
        replaced=replaced,
        deleted=deleted,
        missing=list(missing),
        passages=manifest.passages - manifest.deleted,
        segments=len(manifest.segments),
        without_tokens=without_tokens,
        truncated=truncated,
        skipped_lines=skipped_lines,
        skipped_messages=list(skipped_messages),
        seconds=round(time.monotonic() - started, 3),
    )
