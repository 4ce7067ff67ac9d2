"""The loss of a distillation stage: token KD and relevance KD over the same two texts of a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drdecr.errors import ModelError
from training.losses.relevance_kd import mean_maxsim, relevance_kd
from training.losses.token_kd import token_kd
from training.teacher import TeacherVectors


@dataclass(frozen=True, slots=True)
class Objectives:
    """How much each objective counts, and the constants of their formulas.

    token_query: token KD of the foreign text against its English. token_passage: of the English text against
    itself, which anchors the space of the passages. relevance: KL of the student's full relevance.
    context_relevance: KL of the contextual stream's tokens alone, for a student that has one.
    temperature: of both softmaxes, over MaxSim divided by the number of query tokens.
    """

    token_query: float = 0.5
    token_passage: float = 0.5
    relevance: float = 0.0
    context_relevance: float = 0.0
    temperature: float = 0.05


class DistillationLoss(nn.Module):
    """Learn from a teacher that read the English of both sides.

    A row has a query (any language) and a passage (English); its label holds the numbers of the query's English and
    of the passage among the teacher's stored vectors. The candidates of a query are the passages of its batch. The
    student's tokens that token KD compares are its contextual features where it has them (they share the teacher's
    width and space), else its token vectors.
    """

    def __init__(
        self, model: nn.Module, teacher: TeacherVectors, objectives: Objectives, sentence_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.model = model
        self.teacher = teacher
        self.objectives = objectives
        self.sentence_weight = sentence_weight

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name; the trainer adds them up. Shape of labels: (batch, 2) int64.

        Raises: ModelError for an objective that this student and teacher cannot have together.
        """
        queries, passages = (dict(features) for features in sentence_features)
        query, passage = self.model(queries, task="query"), self.model(passages, task="document")
        device = query["token_embeddings"].device
        teacher_query = self.teacher.padded(labels[:, 0].tolist(), device)
        teacher_passage = self.teacher.padded(labels[:, 1].tolist(), device)
        return {
            name: weight * self._term(name, query, passage, teacher_query, teacher_passage)
            for name, weight in asdict(self.objectives).items()
            if name != "temperature" and weight > 0
        }

    def get_config_dict(self) -> dict[str, Any]:
        return asdict(self.objectives) | {"sentence_weight": self.sentence_weight}

    def _term(
        self,
        name: str,
        query: dict[str, Tensor],
        passage: dict[str, Tensor],
        teacher_query: tuple[Tensor, Tensor],
        teacher_passage: tuple[Tensor, Tensor],
    ) -> Tensor:
        if name in ("token_query", "token_passage"):
            tokens, mask = _taught(query if name == "token_query" else passage)
            teacher_tokens, teacher_mask = teacher_query if name == "token_query" else teacher_passage
            if tokens.shape[-1] != teacher_tokens.shape[-1]:
                raise ModelError(
                    f"{name}: the student's tokens have {tokens.shape[-1]} dimensions, the teacher's "
                    f"{teacher_tokens.shape[-1]}; take a teacher of that width, or the weight 0"
                )
            return token_kd(tokens, mask, teacher_tokens, teacher_mask)
        with torch.no_grad():
            target = mean_maxsim(teacher_query[0], teacher_passage[0], teacher_query[1], teacher_passage[1])
        key = "context_embeddings" if name == "context_relevance" else "token_embeddings"
        if key not in query:
            raise ModelError(f"{name}: this student has no contextual stream; give it the weight 0")
        scores = mean_maxsim(query[key], passage[key], _mask(query), _mask(passage))
        if name == "relevance" and self.sentence_weight > 0:
            scores = scores + self.sentence_weight * query["sentence_embedding"] @ passage["sentence_embedding"].T
        return relevance_kd(scores, target, self.objectives.temperature)


def _mask(features: dict[str, Tensor]) -> Tensor:
    return features["attention_mask"].bool()


def _taught(features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    tokens = features.get("context_embeddings")
    return (features["token_embeddings"] if tokens is None else tokens), _mask(features)
