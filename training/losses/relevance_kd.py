"""Relevance KD: the student should rank the passages of a batch as the teacher does for the English query."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def relevance_kd(student_scores: Tensor, teacher_scores: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) of the softmax over each query's candidates, the mean over queries.

    Both sides have one temperature; unlike Hinton et al. (2015) the loss is not multiplied by its square, which at
    the temperatures below 1 that mean MaxSim needs would only shrink it. Shapes: both (queries, candidates).
    """
    return functional.kl_div(
        functional.log_softmax(student_scores / temperature, dim=-1),
        functional.log_softmax(teacher_scores / temperature, dim=-1),
        log_target=True,
        reduction="batchmean",
    )
