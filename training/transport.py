"""Which share each student token has in each teacher token: alignment by optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SHARPNESS = 0.05
ROUNDS = 30


@torch.no_grad()
def transport_tokens(
    student: Tensor,
    teacher: Tensor,
    student_mask: Tensor,
    teacher_mask: Tensor,
    *,
    sharpness: float = SHARPNESS,
    rounds: int = ROUNDS,
) -> Tensor:
    """Carry the student's tokens to the teacher's at the least cost, 1 - cosine.

    Entropic optimal transport (Cuturi 2013, algorithm 1) in the logarithm: every student token of a text has the same
    mass, every teacher token has, nothing is left over. `sharpness` is the entropy's weight; towards 0 the plan
    becomes a matching. Over real tokens only; both sides may differ in length and tokenizer.

    Shapes: student (batch, s, dim), teacher (batch, t, dim), masks (batch, s) and (batch, t), bool.
    Returns (batch, s, t) float32: the mass carried, in sum 1 for each text that has tokens on both sides, else 0.
    """
    cosine = functional.normalize(student, dim=-1) @ functional.normalize(teacher, dim=-1).transpose(1, 2)
    usable = student_mask.unsqueeze(2) & teacher_mask.unsqueeze(1)
    kernel = (cosine.float() / sharpness).masked_fill(~usable, -torch.inf)
    rows = _even(student_mask)
    columns = _even(teacher_mask)
    by_row, by_column = torch.zeros_like(rows), torch.zeros_like(columns)
    for _ in range(rounds):
        by_column = _finite(columns - torch.logsumexp(kernel + by_row.unsqueeze(2), dim=1))
        by_row = _finite(rows - torch.logsumexp(kernel + by_column.unsqueeze(1), dim=2))
    return torch.exp(kernel + by_row.unsqueeze(2) + by_column.unsqueeze(1))


def _even(mask: Tensor) -> Tensor:
    """Return the logarithm of equal masses for the real tokens of each text."""
    return torch.where(mask, -mask.sum(1, keepdim=True).clamp(min=1).float().log(), -torch.inf)


def _finite(potentials: Tensor) -> Tensor:
    # Padding has -inf - -inf; no mass reaches it whatever its potential.
    return torch.nan_to_num(potentials, nan=0.0, posinf=0.0, neginf=0.0)
