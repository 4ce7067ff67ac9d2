"""Keeps segments few while many small additions come: the newest are merged where they are about equally large.

A snapshot of n tokens so has about log(n) segments, and a token is copied about as many times in its life. Where the
merged segment has outgrown the quantiser, it gets a new one: too few lists cost recall (benchmarks/index_change.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

from drdecr.encoder.types import Encoder
from drdecr.errors import SnapshotCorruptError
from drdecr.index.manifest import SegmentRecord
from drdecr.index.quantizer import Quantizer
from drdecr.index.segment import Segment
from drdecr.index.snapshot import compare_files
from indexer.generations import Draft
from indexer.parts import living
from indexer.progress import Progress
from indexer.segment_writer import Part
from indexer.segments import NewQuantizer, copy_segment, write_segment
from indexer.sources import EncodedAgain, Source, StoredSource

OUTGROWN = 2
"""So many times the tokens that a quantiser was trained for are too many for it."""

_TIER = 2


def merge_newest(draft: Draft, progress: Progress) -> None:
    """Merge the newest segment of a draft with those before it, as long as these are not over twice as large."""
    start = _first_of_tier(draft.segments)
    tier = draft.segments[start:]
    if len(tier) == 1:
        return
    for record in tier:
        # What is copied gets a new checksum, which would vouch for damage.
        for name, problem in compare_files(draft.root, record.paths(), {}, hashes=True):
            raise SnapshotCorruptError(f"{draft.root / name} {problem}; run `drdecr index verify`")
    (shared,) = (each for each in draft.quantizers if each.directory == tier[-1].quantizer)
    quantizer = Quantizer(draft.root, shared, draft.manifest.dim)
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(Segment(draft.root, record, quantizer))) for record in tier]
        parts = living(opened)
        if sum(record.live_tokens for record in tier) > OUTGROWN * shared.tokens:
            draft.segments[start:] = [retrained(draft, parts, shared.codec.bits, progress)]
        else:
            draft.segments[start:] = [copy_segment(draft.root, draft.new_segment(), parts, shared, progress)]


def retrained(
    draft: Draft, parts: Sequence[Part], bits: int, progress: Progress, encoder: Encoder | None = None
) -> SegmentRecord:
    """Write the kept passages of segments into a new one, with a quantiser of its own, trained on them.

    An `encoder` encodes their texts again, as a new build would. Without one, vectors are decoded and coded again:
    nothing changes at 16 bits; at 4 bits each time costs .3 to .9 points of Recall@10 (benchmarks/index_change.py),
    where a quantiser that was outgrown eightfold costs 5 and more.
    """
    new = NewQuantizer(draft.new_quantizer(), bits)
    reduction = draft.manifest.reduction
    source: Source = (
        StoredSource(draft.manifest.student.spec, parts, reduction)
        if encoder is None
        else EncodedAgain(encoder, parts, reduction)
    )
    written = write_segment(draft.root, draft.new_segment(), source, lambda _: new, progress)
    draft.quantizers.append(written.quantizer)
    return written.record


def _first_of_tier(segments: Sequence[SegmentRecord]) -> int:
    first = len(segments) - 1
    tokens = segments[first].live_tokens
    while first > 0:
        before = segments[first - 1]
        if before.quantizer != segments[first].quantizer or before.live_tokens > _TIER * tokens:
            break
        tokens += before.live_tokens
        first -= 1
    return first
