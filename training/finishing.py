"""What happens to a student between its last step and its being saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from drdecr.encoder.torch_runtime import load_model
from drdecr.encoder.two_stream import TwoStreamEncoder
from training.rows import Row
from training.transfer.base import token_features
from training.transfer.projection import STEPS, fit_projection

REFIT_ROWS = 800
"""Rows of each kind that show a projection where the token features lie."""
# Characters of each of their texts.
_REFIT_CHARACTERS = 150


@torch.no_grad()
def interpolate(model: MultiVectorEncoder, before: Path, share: float) -> None:
    """Put each parameter at `share` of the way from what it was in the student `before` to what it is now."""
    if share < 1:
        started_from = load_model(before, device=None)
        for now, then in zip(model.parameters(), started_from.parameters(), strict=True):
            now.copy_(torch.lerp(then.to(now.device), now, share))


def refit_projection(model: MultiVectorEncoder, rows: Sequence[Row], steps: int = STEPS) -> None:
    """Fit an embedded student's projection anew to the features that its streams give after training.

    Takes `steps` of `fit_projection`. Leaves a student of another kind as it is.
    """
    encoder = model[0]
    if not isinstance(encoder, TwoStreamEncoder):
        return
    linear = model[1].linear
    fitted = fit_projection(*refit_features(encoder, rows), linear.out_features, steps=steps)
    with torch.no_grad():
        linear.weight.copy_(fitted)


def refit_features(encoder: TwoStreamEncoder, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Return what a projection is fitted to: token features (tokens, width) of the rows' queries and passages."""
    encoder.eval()
    queries, passages = (
        token_features(encoder, [text[:_REFIT_CHARACTERS] for text in texts])
        for texts in zip(*((row.query, row.passage) for row in rows), strict=True)
    )
    return queries, passages
