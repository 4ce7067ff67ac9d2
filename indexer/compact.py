"""Writes a snapshot anew without what changes left behind: fewer segments, no tombstones, no unneeded files."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from drdecr.encoder.types import Encoder
from drdecr.errors import UsageError
from drdecr.index.codec import BITS
from drdecr.index.snapshot import Snapshot
from indexer.change import ChangeReport, report_change
from indexer.generations import Draft, changed_snapshot
from indexer.parts import living
from indexer.progress import SILENT, Progress
from indexer.segment_writer import Part
from indexer.segments import copy_segment
from indexer.tiers import retrained


def compact(
    snapshot: Path,
    *,
    retrain: bool = False,
    bits: int | None = None,
    encoder: Encoder | None = None,
    keep: int = 0,
    progress: Progress = SILENT,
) -> ChangeReport:
    """Merge the segments of each quantiser into one without deleted passages, and free what nothing needs any more.

    Codes are copied, so that a wide-open search finds what it found. With `retrain` all passages get one quantiser,
    trained anew on their decoded vectors, which are coded again with `bits` a dimension (None: as before); a lossy
    codec pays for that with some of its precision. With an `encoder` too, the student that built the snapshot, their
    texts are encoded again instead, and the result is as good as a new build. Keeps `keep` earlier generations.
    Raises: UsageError, ModelMismatchError for another student, SnapshotCorruptError for a snapshot with a damaged
    byte; else as `indexer.change.add`.
    """
    if bits is not None and not (retrain and bits in BITS):
        raise UsageError(f"--bits must be one of {', '.join(map(str, BITS))}, and goes with --retrain")
    if encoder is not None and not retrain:
        raise UsageError("--student goes with --retrain: otherwise codes are copied and nothing is encoded")
    started = time.monotonic()
    # Every byte is verified first: what is copied gets a new checksum, which would vouch for the damage.
    with changed_snapshot(snapshot, "compact", keep=keep) as draft, Snapshot.open(snapshot, verify=True) as opened:
        if encoder is not None:
            opened.require(encoder.spec)
        parts = living(opened.segments) or [(opened.segments[0], np.empty(0, np.int64))]
        if retrain:
            largest = max(draft.quantizers, key=lambda quantizer: quantizer.tokens)
            draft.segments = [retrained(draft, parts, bits or largest.codec.bits, progress, encoder)]
        else:
            _copy(draft, parts, progress)
    return report_change(draft, started)


def _copy(draft: Draft, parts: list[Part], progress: Progress) -> None:
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part[0].record.quantizer, []).append(part)
    records = {quantizer.directory: quantizer for quantizer in draft.quantizers}
    draft.segments = []
    for directory, group in groups.items():
        only = group[0][0].record
        if len(group) == 1 and only.tombstones is None:
            draft.segments.append(only)
        else:
            draft.segments.append(copy_segment(draft.root, draft.new_segment(), group, records[directory], progress))
