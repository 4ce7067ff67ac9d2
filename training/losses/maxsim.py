"""MaxSim of every query with every passage of a batch, on the real query tokens alone."""

from __future__ import annotations

from sentence_transformers.multi_vector_encoder.scoring import colbert_scores
from torch import Tensor


def maxsim(queries: Tensor, passages: Tensor, query_mask: Tensor, passage_mask: Tensor, *, mean: bool) -> Tensor:
    """Return MaxSim, every query by every passage; with `mean`, over the number of query tokens.

    The library compares all that pads a query with all passages. Here each real token is a query of its own, which
    takes a fraction of the time where lengths differ (`benchmarks/packed_training.py`).

    Shapes: queries (queries, s, dim), passages (passages, t, dim), masks without the last axis, bool.
    Returns (queries, passages) float32.
    """
    owners = query_mask.nonzero()[:, 0]
    best: Tensor = colbert_scores(
        queries[query_mask].unsqueeze(1), passages.unsqueeze(1), documents_mask=passage_mask.unsqueeze(1)
    )
    scores: Tensor = best.new_zeros(len(queries), len(passages)).index_add(0, owners, best)
    if mean:
        scores /= query_mask.sum(1, keepdim=True).clamp(min=1)
    return scores
