"""Which passages of segments go into a new one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from drdecr.index.segment import Segment
from indexer.segment_writer import Part


def living(segments: Iterable[Segment]) -> list[Part]:
    """Return the segments that have living passages, with the positions of those."""
    parts = [
        (each, np.arange(len(each), dtype=np.int64) if each.live is None else np.flatnonzero(each.live))
        for each in segments
    ]
    return [(segment, kept) for segment, kept in parts if len(kept)]
