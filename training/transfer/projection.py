"""The untrained projection: principal components, then a few seconds of keeping every token's neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.projection import neighbour_kd

STEPS = 400
LEARNING_RATE = 2e-3
TEMPERATURE = 0.03
_TOKENS = 1024
_CANDIDATES = 1536


def principal_components(features: Tensor, dim: int) -> Tensor:
    """Return the `dim` leading directions of (rows, width) features about the origin: (dim, width)."""
    with torch.autocast(features.device.type, enabled=False):
        directions: Tensor = torch.linalg.eigh(features.T @ features).eigenvectors
    return directions[:, -dim:].flip(1).T.contiguous()


def fit_projection(queries: Tensor, passages: Tensor, dim: int, *, steps: int = STEPS, seed: int = 0) -> Tensor:
    """Fit a projection that keeps which passage tokens are near to each query token.

    Starts at the principal components. Shapes: queries and passages (tokens, width), of some hundreds of texts in the
    languages of interest and in English. Returns (dim, width).
    """
    weight = principal_components(torch.cat([queries, passages]), dim).requires_grad_(True)
    optimizer = torch.optim.Adam([weight], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=max(steps, 1))
    chance = torch.Generator().manual_seed(seed)
    tokens = torch.cat([queries, passages])
    for _ in range(steps):
        some = tokens[torch.randint(len(tokens), (_TOKENS,), generator=chance)]
        near = passages[torch.randint(len(passages), (_CANDIDATES,), generator=chance)]
        optimizer.zero_grad()
        neighbour_kd(some, some @ weight.T, near, near @ weight.T, TEMPERATURE).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return weight.detach()
