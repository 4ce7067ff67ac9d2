"""Makes one snapshot of several that the same student built."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drdecr import __version__
from drdecr.errors import InputError, ModelMismatchError, SnapshotCorruptError, UsageError
from drdecr.index.compatibility import require_student
from drdecr.index.manifest import Manifest, QuantizerRecord, format_of, record_file, write_manifest
from drdecr.index.quantizer import Quantizer
from drdecr.index.segment import Segment
from drdecr.index.snapshot import Snapshot
from indexer.change import ids_of, named
from indexer.progress import SILENT, Progress
from indexer.segment_writer import Part
from indexer.segments import copy_segment
from indexer.staging import staged_directory

OnDuplicate = Literal["error", "last"]


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did; `replaced` passages gave way to one with the same id of a later snapshot."""

    out: str
    version: str
    passages: int
    replaced: int
    tokens: int
    segments: int
    size_bytes: int
    seconds: float


def merge(
    out: Path,
    snapshots: Sequence[Path],
    *,
    on_duplicate: OnDuplicate = "error",
    force: bool = False,
    progress: Progress = SILENT,
) -> MergeReport:
    """Copy the living passages of snapshots into a new one at `out`, which must not exist unless `force`.

    Codes are copied as they are. Snapshots whose quantisers are the same files share one segment; each other
    quantiser comes along with a segment of its own (`compact(retrain=True)` makes them one). An id that several
    snapshots have is an error, or the last snapshot's passage wins.
    Raises: ModelMismatchError for snapshots of different students, InputError that names ids which several have,
    SnapshotCorruptError for a damaged source, UsageError for a taken `out`, ResourceError for a full disk.
    """
    started = time.monotonic()
    if len({each.resolve() for each in snapshots}) < max(2, len(snapshots)):
        raise UsageError("give two snapshots or more, each once")
    with ExitStack() as stack:
        opened = [stack.enter_context(Snapshot.open(each, verify=True)) for each in snapshots]
        for each in opened[1:]:
            _require_same_student(opened[0], each)
        parts, replaced = _without_duplicates(opened, on_duplicate)
        partial = stack.enter_context(staged_directory(out, force=force))
        manifest = _write(partial, opened[0], parts, progress)
    return MergeReport(
        out=str(out),
        version=manifest.version,
        passages=manifest.passages,
        replaced=replaced,
        tokens=manifest.tokens,
        segments=len(manifest.segments),
        size_bytes=manifest.size_bytes,
        seconds=round(time.monotonic() - started, 3),
    )


def _require_same_student(first: Snapshot, other: Snapshot) -> None:
    require_student(other.spec, first.spec, first.path)
    if (other.fingerprint, other.spec.sentence_weight) != (first.fingerprint, first.spec.sentence_weight):
        raise ModelMismatchError(
            f"{other.path} (fingerprint {other.fingerprint or 'unknown'}, sentence weight "
            f"{other.spec.sentence_weight}) and {first.path} (fingerprint {first.fingerprint or 'unknown'}, sentence "
            f"weight {first.spec.sentence_weight}) were not built alike; build one of them again"
        )
    if other.manifest.reduction != first.manifest.reduction:
        raise ModelMismatchError(
            f"{other.path} ({_reduction(other)}) and {first.path} ({_reduction(first)}) were not built alike; "
            "build one of them again"
        )


def _reduction(snapshot: Snapshot) -> str:
    return f"--dims {snapshot.manifest.dim}, --pool {snapshot.manifest.reduction.pool:g}"


def _without_duplicates(opened: Sequence[Snapshot], on_duplicate: OnDuplicate) -> tuple[list[Part], int]:
    """Return all living passages but those whose id a later snapshot has, and the number of those."""
    kept: list[tuple[Segment, NDArray[np.bool_]]] = []
    twice: dict[str, None] = {}
    for snapshot in opened:
        earlier = list(kept)
        for segment in snapshot.segments:
            live = np.ones(len(segment), np.bool_) if segment.live is None else segment.live.copy()
            kept.append((segment, live))
            first = 0
            for ids in ids_of(snapshot.path, segment.record):
                own = [each for at, each in enumerate(ids, start=first) if live[at]]
                for older, still in earlier:
                    for each, at in older.store.positions(own).items():
                        if still[at]:
                            still[at] = False
                            twice[each] = None
                first += len(ids)
    if twice and on_duplicate == "error":
        raise InputError(
            f"several of the snapshots hold the ids {named(list(twice))}; --on-duplicate last lets the last win"
        )
    parts = [(segment, np.flatnonzero(live)) for segment, live in kept]
    return [part for part in parts if len(part[1])] or [(kept[0][0], np.empty(0, np.int64))], len(twice)


def _write(root: Path, first: Snapshot, parts: Sequence[Part], progress: Progress) -> Manifest:
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part[0].quantizer.record.contents, []).append(part)
    quantizers, segments = [], []
    for number, group in enumerate(groups.values(), start=1):
        quantizer = _copy_quantizer(group[0][0].quantizer, root, f"quantizers/{number:06d}")
        directory = f"segments/{number:06d}"
        (root / directory).mkdir(parents=True)
        segments.append(copy_segment(root, directory, group, quantizer, progress))
        quantizers.append(quantizer)
    manifest = Manifest(
        format_version=format_of(first.manifest.reduction, first.manifest.student.closeness),
        written_by=f"drdecr {__version__}",
        student=first.manifest.student,
        reduction=first.manifest.reduction,
        quantizers=quantizers,
        segments=segments,
    )
    write_manifest(root, manifest)
    return manifest


def _copy_quantizer(quantizer: Quantizer, root: Path, directory: str) -> QuantizerRecord:
    (root / directory).mkdir(parents=True)
    for name, record in quantizer.record.files.items():
        shutil.copyfile(quantizer.directory / name, root / directory / name)
        if record_file(root / directory / name) != record:
            raise SnapshotCorruptError(f"{quantizer.directory / name} changed while it was copied; run verify")
    return quantizer.record.model_copy(update={"directory": directory})
