"""Token KD: a student token should be where its teacher token is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.alignment import align_tokens, nearest_tokens, take_aligned
from training.losses.processes import count_of_all
from training.recipe import Alignment
from training.transport import transport_tokens


def token_kd(
    student: Tensor,
    student_mask: Tensor,
    teacher: Tensor,
    teacher_mask: Tensor,
    *,
    alignment: Alignment = "greedy",
    leftovers: str = "drop",
    threshold: float | None = None,
) -> Tensor:
    """Return the mean squared distance of each student token to the teacher token aligned with it.

    Squared Euclidean distance a token, the mean over aligned tokens (Li et al. 2022, section 3.2, has the mean over
    tokens and dimensions: this is theirs times the dimension). With `greedy` alignment a student token for which no
    teacher token is left does not count, or, with `leftovers` nearest, learns from the teacher token nearest to it.
    A pair whose cosine is below `threshold` does not count either.
    With `transport` a student token has a share in many teacher tokens, and the distance is the mean by these shares.
    With nothing aligned the loss is 0.

    Shapes: student (batch, s, dim), teacher (batch, t, dim), masks (batch, s) and (batch, t), bool.
    """
    seen = student.detach()
    if alignment == "transport":
        return _over_plan(student, student_mask, teacher, transport_tokens(seen, teacher, student_mask, teacher_mask))
    if alignment == "nearest":
        positions = nearest_tokens(seen, teacher, student_mask, teacher_mask)
    else:
        positions = align_tokens(seen, teacher, student_mask, teacher_mask)
        if leftovers == "nearest":
            nearest = nearest_tokens(seen, teacher, student_mask, teacher_mask)
            positions = torch.where(positions < 0, nearest, positions)
    aligned = positions >= 0
    taught = take_aligned(teacher, positions)
    if threshold is not None:
        aligned &= functional.cosine_similarity(seen, taught, dim=-1) >= threshold
    distance = (student - taught).square().sum(-1)
    return _mean_over_all(distance, aligned)


def _over_plan(student: Tensor, student_mask: Tensor, teacher: Tensor, plan: Tensor) -> Tensor:
    """Return the mean over student tokens of the distance to the teacher tokens, by the rows of a plan."""
    shares = plan / plan.sum(2, keepdim=True).clamp(min=1e-12)
    counted = student_mask & (plan.sum(2) > 0)
    # |s - t|² averaged by shares, without a (batch, s, t, dim) tensor.
    distance = (
        student.square().sum(-1)
        - 2 * (student * (shares @ teacher)).sum(-1)
        + (shares * teacher.square().sum(-1).unsqueeze(1)).sum(-1)
    )
    return _mean_over_all(distance, counted)


def _mean_over_all(distance: Tensor, counted: Tensor) -> Tensor:
    count = count_of_all(counted.sum())
    return torch.where(counted, distance, 0.0).sum() / torch.where(count > 0, count, 1)
