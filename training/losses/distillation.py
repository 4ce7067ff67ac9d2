"""The loss of a distillation stage: token KD and relevance KD over the same two texts of a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from sentence_transformers.util import all_gather, all_gather_padded, all_gather_with_grad, get_rank
from torch import Tensor, distributed, nn
from torch.nn import functional

from drdecr.encoder.types import Kind
from drdecr.errors import ModelError
from training.losses.labelled import labelled_cross_entropy
from training.losses.maxsim import maxsim
from training.losses.processes import count_of_all
from training.losses.projection import neighbour_kd
from training.losses.relevance_kd import relevance_kd
from training.losses.token_kd import token_kd
from training.recipe import ObjectiveWeights
from training.teacher import TeacherTokens

_OVER_THE_BATCH = ("relevance", "context_relevance", "sentence", "context_sentence", "labelled", "projection")
_GATHERED = ("token_embeddings", "context_embeddings")


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a batch: what the student gave, and the teacher's tokens (batch, t, dim) with their mask.

    `texts` numbers the English texts of this side among the teacher's, (batch,) int64.
    """

    texts: Tensor
    features: dict[str, Tensor]
    teacher: Tensor
    teacher_mask: Tensor

    @property
    def mask(self) -> Tensor:
        return self.features["attention_mask"].bool()

    def of_all_processes(self, keys: Sequence[str]) -> Side:
        """Return this side of the batches of all processes that train together: some features, with gradients."""
        if not distributed.is_initialized():
            return self
        features: dict[str, Tensor] = {}
        for key in keys:
            if key in self.features:
                features[key], mask = all_gather_padded(self.features[key], self.mask, with_grad=True)
                features["attention_mask"] = mask
        if "sentence_embedding" in self.features:
            features["sentence_embedding"] = all_gather_with_grad(self.features["sentence_embedding"])
        return Side(all_gather(self.texts), features, *all_gather_padded(self.teacher, self.teacher_mask))

    def __contains__(self, key: str) -> bool:
        return key in self.features

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.features:
            raise ModelError(f"this student gives no {key}; give the objectives that need it the weight 0")
        return self.features[key].float()


@dataclass(frozen=True)
class Both:
    """The two sides of a batch, and what several objectives compare of them: computed once."""

    query: Side
    passage: Side
    sentence_weight: float

    @cached_property
    def target(self) -> Tensor:
        """The teacher's scores of each query's candidates, over the number of its query tokens."""
        query, passage = self.query, self.passage
        with torch.no_grad():
            return maxsim(query.teacher, passage.teacher, query.teacher_mask, passage.teacher_mask, mean=True)

    @cached_property
    def ranked(self) -> Tensor:
        """What the student ranks by, over the number of query tokens, but for the length prior, the closeness and the
        ramp: the sentence vector counts whole for a short query too.
        """
        scores = self.scores("token_embeddings")
        return scores + self.sentence_weight * self.sentence_scores if self.sentence_weight > 0 else scores

    @property
    def sentence_scores(self) -> Tensor:
        return self.query["sentence_embedding"] @ self.passage["sentence_embedding"].T

    def scores(self, key: str) -> Tensor:
        tokens = self.query[key]
        # A student's own token vectors have their weights already.
        if key != "token_embeddings" and "query_weights" in self.query:
            tokens = tokens * self.query["query_weights"].unsqueeze(-1)
        return maxsim(tokens, self.passage[key], self.query.mask, self.passage.mask, mean=True)


class DistillationLoss(nn.Module):
    """Learn from a teacher that read the English of both sides.

    A row has a query (any language) and a passage (English); its label holds the numbers of the query's English and
    of the passage among the teacher's texts. The candidates of a query are the passages of its batch, those of all
    processes where several train together. The
    student's tokens that token KD compares are its contextual features where it has them (they share the teacher's
    width and space), else its token vectors.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: TeacherTokens,
        objectives: ObjectiveWeights,
        sentence_weight: float = 0.0,
        token_map: Tensor | None = None,
    ) -> None:
        """Keep the parts. `token_map`, (teacher's dim, width), takes the teacher's tokens to the student's width."""
        super().__init__()
        self.model = model
        self.teacher = teacher
        self.objectives = objectives
        self.sentence_weight = sentence_weight
        self.token_map = token_map
        # The student's modules after the first: its projection, and what scales it. They are no children of the loss,
        # and taken here: several processes that train together put a wrapper in the student's place.
        self._tail = [*model.children()][1:]
        self._gathered = (*_GATHERED, "token_features") if objectives.projection > 0 else _GATHERED

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name; the trainer adds them up. Shape of labels: (batch, 2) int64."""
        queries, passages = (dict(features) for features in sentence_features)
        encoded = self.model(queries, task="query"), self.model(passages, task="document")
        device = labels.device
        query, passage = (
            Side(numbers, features, *self.teacher.padded(numbers.tolist(), device, kind))
            for numbers, features, kind in zip(labels.T, encoded, get_args(Kind), strict=True)
        )
        # The model may run in 16 bits; what is compared at a temperature of 0.05 needs 32.
        with torch.autocast(device.type, enabled=False):
            own = Both(query, passage, self.sentence_weight)
            everyones = Both(query, passage.of_all_processes(self._gathered), self.sentence_weight)
            return {
                name: weight * getattr(self, f"_{name}")(everyones if name in _OVER_THE_BATCH else own)
                for name, weight in self.objectives.weights.items()
                if weight > 0
            }

    def get_config_dict(self) -> dict[str, Any]:
        return self.objectives.model_dump() | {"sentence_weight": self.sentence_weight}

    def _token_query(self, both: Both) -> Tensor:
        return self._token_kd(both.query)

    def _token_passage(self, both: Both) -> Tensor:
        return self._token_kd(both.passage)

    def _token_kd(self, side: Side) -> Tensor:
        tokens = side[_compared(side)]
        return token_kd(
            tokens,
            side.mask,
            self._mapped(side.teacher, tokens.shape[-1]),
            side.teacher_mask,
            alignment=self.objectives.alignment,
            leftovers=self.objectives.leftovers,
            threshold=self.objectives.alignment_threshold,
        )

    def _mapped(self, teacher: Tensor, width: int) -> Tensor:
        """Take the teacher's tokens to the width of the student's. Raises: ModelError where they have another."""
        if self.token_map is not None:
            teacher = functional.normalize(teacher @ self.token_map.to(teacher.device), dim=-1)
        if width != teacher.shape[-1]:
            raise ModelError(
                f"token KD: the student's tokens have {width} dimensions, the teacher's "
                f"{teacher.shape[-1]}; take a teacher of that width, or the weight 0"
            )
        return teacher

    def _sentence_query(self, both: Both) -> Tensor:
        return self._sentence_kd(both.query)

    def _sentence_passage(self, both: Both) -> Tensor:
        return self._sentence_kd(both.passage)

    def _sentence_kd(self, side: Side) -> Tensor:
        tokens = side[_compared(side)]
        teacher = self._mapped(side.teacher, tokens.shape[-1])
        distance = mean_direction(tokens, side.mask) - mean_direction(teacher, side.teacher_mask)
        return distance.square().sum(-1).mean()

    def _context_sentence(self, both: Both) -> Tensor:
        query, passage = both.query, both.passage
        key = _compared(query)
        scores = mean_direction(query[key], query.mask) @ mean_direction(passage[key], passage.mask).T
        target = (
            mean_direction(query.teacher, query.teacher_mask)
            @ mean_direction(passage.teacher, passage.teacher_mask).T
        )
        return relevance_kd(scores, target, self.objectives.temperature)

    def _relevance(self, both: Both) -> Tensor:
        return relevance_kd(both.ranked, both.target, self.objectives.temperature)

    def _labelled(self, both: Both) -> Tensor:
        first = len(both.ranked) * get_rank()
        return labelled_cross_entropy(
            both.ranked, both.query.texts, both.passage.texts, first, self.objectives.temperature
        )

    def _context_relevance(self, both: Both) -> Tensor:
        return relevance_kd(both.scores("context_embeddings"), both.target, self.objectives.temperature)

    def _sentence(self, both: Both) -> Tensor:
        return relevance_kd(both.sentence_scores, both.target, self.objectives.temperature)

    def _projection(self, both: Both) -> Tensor:
        tokens, candidates = (side["token_features"].detach()[side.mask] for side in (both.query, both.passage))
        moved = neighbour_kd(
            tokens, self._project(tokens), candidates, self._project(candidates), self.objectives.temperature
        )
        count = torch.tensor(float(len(tokens)), device=tokens.device)
        return moved * count / count_of_all(count)

    def _project(self, features: Tensor) -> Tensor:
        projected = {"token_embeddings": features}
        for module in self._tail:
            projected = module(projected)
        return projected["token_embeddings"]


def mean_direction(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each text's tokens, L2-normalised: (batch, t, dim) and (batch, t) bool -> (batch, dim)."""
    return functional.normalize((tokens * mask.unsqueeze(-1)).sum(1), dim=-1)


def _compared(side: Side) -> str:
    return "context_embeddings" if "context_embeddings" in side else "token_embeddings"
