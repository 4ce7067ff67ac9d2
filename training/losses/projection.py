"""The projection's own objective: token vectors should keep their neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.losses.relevance_kd import relevance_kd


def neighbour_kd(
    before: Tensor, after: Tensor, candidates_before: Tensor, candidates_after: Tensor, temperature: float
) -> Tensor:
    """Return how far a projection moves each token's neighbours.

    KL of the softmax over all candidates' cosines, before to after the projection; the mean over tokens. MaxSim takes
    the nearest passage token of each query token, so near neighbours count most, and no label is needed.

    Shapes: before (tokens, width), after (tokens, dim), candidates likewise; of any length.
    """
    with torch.no_grad():
        target = functional.normalize(before, dim=-1) @ functional.normalize(candidates_before, dim=-1).T
    kept = functional.normalize(after, dim=-1) @ functional.normalize(candidates_after, dim=-1).T
    return relevance_kd(kept, target, temperature)
