"""Keeps segments few while many small additions come: the newest are merged where they are about equally large.

A snapshot of n tokens so has about log(n) segments, and a token is copied about as many times in its life.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

from drdecr.errors import SnapshotCorruptError
from drdecr.index.manifest import SegmentRecord
from drdecr.index.quantizer import Quantizer
from drdecr.index.segment import Segment
from drdecr.index.snapshot import compare_files
from indexer.generations import Draft
from indexer.parts import living
from indexer.progress import Progress
from indexer.segments import copy_segment

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
    quantizer = Quantizer(draft.root, shared, draft.manifest.student.dim)
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(Segment(draft.root, record, quantizer))) for record in tier]
        merged = copy_segment(draft.root, draft.new_segment(), living(opened), shared, progress)
    draft.segments[start:] = [merged]


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
