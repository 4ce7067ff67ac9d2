"""Direct fine-tuning inside distillation: a labelled query should find its passage among those of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def labelled_cross_entropy(
    scores: Tensor, queries: Tensor, passages: Tensor, first: int, temperature: float
) -> Tensor:
    """Return the cross-entropy of each labelled query's own passage, the mean over labelled queries.

    Query i's own passage is candidate `first` + i. A row whose passage is the query's English is parallel text, which
    has no label and does not count. Candidates that say what the own passage or the query's English says are no
    negatives: they are left out. Without a labelled row the loss is 0.

    Shapes: scores (queries, candidates); queries (queries,) and passages (candidates,) int64 number the English texts
    of both. Source: the direct fine-tuning that Li et al. 2022 compare with and start from.
    """
    places = torch.arange(len(queries), device=scores.device)
    own = passages[first + places]
    labelled = own != queries
    if not labelled.any():
        return scores.sum() * 0.0
    same = (passages == own.unsqueeze(1)) | (passages == queries.unsqueeze(1))
    same[places, first + places] = False
    logits = (scores / temperature).masked_fill(same, float("-inf"))
    return functional.cross_entropy(logits[labelled], (first + places)[labelled])
