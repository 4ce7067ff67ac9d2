"""The loss of a ranking stage: contrastive, or the teacher's scores of the same candidates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.multi_vector_encoder.scoring import colbert_kd_scores
from sentence_transformers.util import all_gather_padded, all_gather_with_grad, get_rank, get_world_size
from torch import Tensor, distributed, nn
from torch.nn import functional

from training.literal import encode, scored_tokens
from training.losses.maxsim import maxsim
from training.recipe import RankingStage, Similarity


class RankingLoss(nn.Module):
    """Learn to rank lists of candidates.

    Cross-entropy takes each row's first passage as the relevant one; with `in_batch` the passages of the other rows
    compete too, but for those that answer its query as well: the labels are then `passage_numbers`. Distillation is
    KL(teacher || student) of the softmax over a row's candidates at one temperature, times its square (Li et al.
    2022, section 3.3). The labels are the teacher's scores; with a live `teacher` it is asked here, in evaluation
    mode, with the English queries.
    """

    def __init__(
        self, model: nn.Module, stage: RankingStage, sentence_weight: float = 0.0, teacher: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        self.sentence_weight = sentence_weight
        # Not a child: the trainer would train it, or put the student in its place.
        self._teacher = [] if teacher is None else [teacher.requires_grad_(False).eval()]

    @property
    def has_live_teacher(self) -> bool:
        return bool(self._teacher)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Return the loss. Features: queries, passages of all rows (rows x ways), English queries where asked for."""
        queries, passages, *english = sentence_features
        stage = self.stage
        rows = len(labels)
        encoded = encode(self.model, queries, "query"), encode(self.model, passages, "document")
        with torch.autocast(labels.device.type, enabled=False):
            if stage.objective == "cross-entropy":
                return self._contrastive(*encoded, labels)
            scores = self._scores(*encoded, rows)
        if self._teacher:
            labels = self._taught(english[0], passages, rows)
        with torch.autocast(labels.device.type, enabled=False):
            loss = functional.kl_div(
                functional.log_softmax(scores / stage.temperature, dim=-1),
                functional.log_softmax(labels / stage.temperature, dim=-1),
                log_target=True,
                reduction="batchmean",
            )
            return loss * stage.temperature**2

    def get_config_dict(self) -> dict[str, Any]:
        return self.stage.model_dump(mode="json")

    def _contrastive(self, queries: dict[str, Tensor], passages: dict[str, Tensor], labels: Tensor) -> Tensor:
        rows = len(labels)
        at = torch.arange(rows, device=labels.device)
        if not self.stage.in_batch:
            scores = self._scores(queries, passages, rows)
            return functional.cross_entropy(scores / self.stage.temperature, torch.zeros_like(at))
        ways = len(passages["token_embeddings"]) // rows
        scores = self._scores(queries, _of_all_processes(passages), rows, in_batch=True)
        relevant = ways * (at + get_rank() * rows)
        candidates, answers = labels[:, :ways], labels[:, ways:]
        answering = (_rows_of_all_processes(candidates).flatten()[:, None] == answers[:, None]).any(-1)
        answering[at, relevant] = False
        return functional.cross_entropy(scores.masked_fill(answering, -torch.inf) / self.stage.temperature, relevant)

    @torch.no_grad()
    def _taught(self, english: dict[str, Tensor], passages: dict[str, Tensor], rows: int) -> Tensor:
        (teacher,) = self._teacher
        queries, read = encode(teacher, english, "query"), encode(teacher, passages, "document")
        with torch.autocast(queries["token_embeddings"].device.type, enabled=False):
            return self._scores(queries, read, rows)

    def _scores(
        self, queries: dict[str, Tensor], passages: dict[str, Tensor], rows: int, *, in_batch: bool = False
    ) -> Tensor:
        """Score candidates: (rows, ways), or with `in_batch` (rows, rows x ways)."""
        query, query_mask = scored_tokens(queries)
        passage, passage_mask = scored_tokens(passages)
        # In the batch of all processes, the rows are those of all.
        groups = rows * (get_world_size() if in_batch else 1)
        ways = len(passage) // groups
        scores = score_candidates(
            query,
            passage.reshape(groups, ways, *passage.shape[1:]),
            query_mask,
            passage_mask.reshape(groups, ways, -1),
            in_batch=in_batch,
            similarity=self.stage.similarity,
            mean=self.stage.mean_maxsim,
        )
        if self.sentence_weight > 0 and "sentence_embedding" in queries:
            one, other = queries["sentence_embedding"].float(), passages["sentence_embedding"].float()
            products = one @ other.T if in_batch else (other.reshape(rows, ways, -1) @ one.unsqueeze(2)).squeeze(2)
            tokens = 1.0 if self.stage.mean_maxsim else query_mask.sum(1, keepdim=True)
            scores = scores + self.sentence_weight * tokens * products
        return scores


def _of_all_processes(passages: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the passages of all processes that train together, with gradients: of one, its own."""
    if not distributed.is_initialized():
        return passages
    tokens, mask = scored_tokens(passages)
    gathered = dict(zip(("token_embeddings", "attention_mask"), all_gather_padded(tokens, mask, True), strict=True))
    if "sentence_embedding" in passages:
        gathered["sentence_embedding"] = all_gather_with_grad(passages["sentence_embedding"])
    return gathered


def _rows_of_all_processes(values: Tensor) -> Tensor:
    """Return the rows of all processes that train together, in their order, without gradients: of one, its own."""
    if not distributed.is_initialized():
        return values
    gathered = [torch.empty_like(values) for _ in range(get_world_size())]
    distributed.all_gather(gathered, values.contiguous())
    return torch.cat(gathered)


def score_candidates(
    queries: Tensor,
    passages: Tensor,
    query_mask: Tensor,
    passage_mask: Tensor,
    *,
    in_batch: bool = False,
    similarity: Similarity = "cosine",
    mean: bool = False,
) -> Tensor:
    """Return MaxSim of each query with its own candidates, (rows, ways), or with all, (rows, rows x ways).

    `l2` is the sum of -|q - d|² over query tokens. Of unit vectors that is 2 cos - 2, and of a zero passage vector -1
    where cosine gives 0: so it is twice the cosine, less |q|² and |d|² as they are.

    Shapes: queries (rows, s, dim), passages (rows, ways, t, dim), masks without the last axis, bool.
    """

    def score(queries: Tensor, passages: Tensor, *, mean: bool = False) -> Tensor:
        if in_batch:
            return maxsim(queries, passages.flatten(0, 1), query_mask, passage_mask.flatten(0, 1), mean=mean)
        own: Tensor = colbert_kd_scores(
            queries, passages, queries_mask=query_mask, documents_mask=passage_mask, length_normalize=mean
        )
        return own

    if similarity == "cosine":
        return score(queries, passages, mean=mean)
    # One more dimension carries |d|²: 2 q·d - |d|² is the product of (2q, -1) and (d, |d|²).
    longer = torch.cat([2 * queries, -torch.ones_like(queries[..., :1])], -1)
    squares = passages.square().sum(-1, keepdim=True)
    products = score(longer, torch.cat([passages, squares], -1))
    scores = products - (queries.square().sum(-1) * query_mask).sum(1, keepdim=True)
    return scores / query_mask.sum(1, keepdim=True).clamp(min=1) if mean else scores
