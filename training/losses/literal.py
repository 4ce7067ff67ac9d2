"""Token KD as the released code computes it: every position takes part, padding and special tokens too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.alignment import literal_alignment, take_aligned
from training.literal import KEPT, encode
from training.recipe import LiteralStage


class LiteralTokenKD(nn.Module):
    """w · MSE(student's foreign tokens, aligned teacher's) + (1 - w) · MSE(student's English, teacher's English).

    MSE is the mean over texts, positions and dimensions. Both models read the English text on the passage side, where
    position stands for position; the query side is aligned (Li et al. 2022, section 3.2, as released).
    """

    def __init__(self, model: nn.Module, teacher: nn.Module, stage: LiteralStage) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        # Not a child: the trainer would train it, or put the student in its place.
        self._teacher = [teacher.requires_grad_(False).eval()]

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Return both weighted terms. Features: foreign text, English as passage, English as query."""
        foreign, passage, english = sentence_features
        (teacher,) = self._teacher
        with torch.no_grad():
            taught_query = _vectors(encode(teacher, english, "query"))
            taught_passage = _vectors(encode(teacher, passage, "document"))
        query = _vectors(encode(self.model, foreign, "query"))
        read = _vectors(encode(self.model, passage, "document"))
        with torch.autocast(labels.device.type, enabled=False):
            positions = literal_alignment(query.detach(), taught_query)
            weight = self.stage.query_weight
            return {
                "token_query": weight * functional.mse_loss(query, take_aligned(taught_query, positions)),
                "token_passage": (1 - weight) * functional.mse_loss(read, taught_passage),
            }

    def get_config_dict(self) -> dict[str, Any]:
        return self.stage.model_dump(mode="json")


def _vectors(features: dict[str, Tensor]) -> Tensor:
    return features["token_embeddings"].float() * features[KEPT].unsqueeze(-1)
