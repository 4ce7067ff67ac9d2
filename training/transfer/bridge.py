"""Fit the bridge: where the English encoder expects the embedding of a piece, by its n-gram features in a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drdecr.encoder.two_stream import TwoStreamEncoder

# What a piece's input embedding owes to the bridge; the transferred embedding gives the rest. Measured by
# benchmarks/embedded_base.py --bridge-shares.
SHARE = 0.6
_BATCH = 64


@torch.no_grad()
def fit_bridge(encoder: TwoStreamEncoder, texts: Sequence[str], *, share: float = SHARE) -> float:
    """Let the bridge give `share` of every piece's input embedding, and the transferred embedding the rest.

    By least squares over English `texts`: from the n-gram features of each piece that both vocabularies have to its
    English embedding. The n-gram features of a word and of its translation are near each other, so the map holds for
    pieces of other languages too. Returns the share of the embeddings' variance that the fit explains.
    """
    embedding = encoder.context.embedding
    shared = embedding.weights.amax(dim=1) == 1
    width = encoder.ngram.width
    # Sums in 64 bits: in 32 the normal equations lose the directions of little variance.
    within = torch.zeros(width, width, dtype=torch.float64)
    across = torch.zeros(width, embedding.english.shape[1], dtype=torch.float64)
    total, squares, count = torch.zeros(embedding.english.shape[1], dtype=torch.float64), 0.0, 0
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), _BATCH):
        batch = encoder.preprocess(ordered[start : start + _BATCH])
        ids, mask = batch["input_ids"], batch["attention_mask"]
        taught = mask.bool() & shared[ids]
        features = encoder.ngram(ids, mask)[0][taught].double()
        wanted = embedding(ids)[taught].double()
        within += features.T @ features
        across += features.T @ wanted
        total += wanted.sum(0)
        squares += float(wanted.square().sum())
        count += len(wanted)
    # One token's worth of ridge keeps a few texts from being learned by heart.
    found = torch.linalg.solve(within + torch.eye(width, dtype=torch.float64), across)
    encoder.bridge.weight.copy_(share * found.T)
    embedding.weights.mul_(1 - share)
    left = squares - float((across * found).sum())
    return 1 - left / max(squares - float(total.square().sum()) / max(count, 1), 1e-12)
