"""How far token vectors lie from the centroids that stand for them, and when training those anew pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.index.manifest import Manifest, QuantizerRecord, SegmentRecord
from drdecr.index.quantizer import Quantizer

_SAMPLE = 2**16
# Measured by benchmarks/index_change.py, 8,000 real passages in float16, compacted: a drift of .25 costs .7 points of
# Recall@10 and one of .79, at 8 times the tokens, 14.6; growth alone costs .25 points at 1.8 and 5.5 at 8.2.
_DRIFTED, _GROWN = 0.3, 2.5
# Centroids lie nearer to the tokens that they were trained on than to any others; with few tokens, much nearer.
_TELLING_TOKENS = 10_000
_MANY_SEGMENTS, _MUCH_DELETED = 8, 0.2
_LOSSLESS_BITS = 16


@dataclass(frozen=True, slots=True)
class Drift:
    """How well the quantisers of a snapshot still fit what it holds.

    `drift` is how much farther from their centroids the living tokens lie on average than those that the quantisers
    were trained on: 0.1 is a tenth farther. `growth` is how many living tokens there are for one that the largest
    quantiser was trained for. Both are None or 0 where nothing is known.
    """

    drift: float | None
    growth: float


def drift_of(manifest: Manifest) -> Drift:
    """Measure the drift of a snapshot, from the figures in its manifest."""
    quantizers = {quantizer.directory: quantizer for quantizer in manifest.quantizers}
    known = [(each, drift_of_segment(each, quantizers[each.quantizer])) for each in manifest.segments]
    measured = [(segment.live_tokens, drift) for segment, drift in known if drift is not None]
    tokens = sum(count for count, _ in measured)
    living = sum(segment.live_tokens for segment in manifest.segments)
    trained = max((quantizer.tokens for quantizer in manifest.quantizers), default=0)
    return Drift(
        drift=sum(count * drift for count, drift in measured) / tokens if tokens else None,
        growth=living / trained if trained else 0.0,
    )


def advise(manifest: Manifest) -> str:
    """Say which maintenance pays, and why; empty where none does."""
    found = drift_of(manifest)
    trained = max((quantizer.tokens for quantizer in manifest.quantizers), default=0)
    drifted = (found.drift or 0.0) > _DRIFTED and trained >= _TELLING_TOKENS
    grown = found.growth > _GROWN
    if drifted or grown:
        why = f"tokens lie {found.drift or 0:.0%} farther from their centroids" if drifted else ""
        why += " and " if drifted and grown else ""
        why += f"there are {found.growth:.1f} times as many as these were trained for" if grown else ""
        # What was rounded once is only rounded a second time, unless its text is encoded again.
        lossy = any(quantizer.codec.bits < _LOSSLESS_BITS for quantizer in manifest.quantizers)
        command = "compact --retrain --student STUDENT" if lossy else "compact --retrain"
        return f"`drdecr index {command}`, or a new build: {why}"
    deleted = manifest.deleted / max(manifest.passages, 1)
    if len(manifest.segments) > max(_MANY_SEGMENTS, len(manifest.quantizers)) or deleted > _MUCH_DELETED:
        return f"`drdecr index compact`: {len(manifest.segments)} segments, {deleted:.0%} of the passages deleted"
    return ""


def drift_of_segment(segment: SegmentRecord, quantizer: QuantizerRecord) -> float | None:
    """Return how much farther a segment's tokens lie from their centroids than those of the training, as a share."""
    if segment.residual is None or not quantizer.residual:
        return None
    return segment.residual / quantizer.residual - 1


def mean_residual(vectors: NDArray[Any], cells: NDArray[Any], quantizer: Quantizer) -> float | None:
    """Return the mean squared distance of vectors (n, dim) from their centroids `cells` (n,); None without vectors.

    At most 65,536 of them, evenly spread, are read.
    """
    if len(vectors) == 0:
        return None
    rows = np.linspace(0, len(vectors) - 1, min(len(vectors), _SAMPLE)).astype(np.int64)
    distances = quantizer.turn(np.asarray(vectors[rows], dtype=np.float32)) - quantizer.centroids[cells[rows]]
    return round(float(np.einsum("ij,ij->i", distances, distances, dtype=np.float64).mean()), 6)
