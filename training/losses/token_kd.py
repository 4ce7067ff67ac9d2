"""Token KD: a student token should be where its teacher token is."""

from __future__ import annotations

import torch
from torch import Tensor

from training.alignment import align_tokens, take_aligned


def token_kd(student: Tensor, student_mask: Tensor, teacher: Tensor, teacher_mask: Tensor) -> Tensor:
    """Return the mean squared distance of each student token to the teacher token aligned with it.

    Squared Euclidean distance a token, the mean over aligned tokens (Li et al. 2022, section 3.2, has the mean over
    tokens and dimensions: this is theirs times the dimension). Student tokens for which no teacher token is left do
    not count; with nothing aligned the loss is 0.

    Shapes: student (batch, s, dim), teacher (batch, t, dim), masks (batch, s) and (batch, t), bool.
    """
    positions = align_tokens(student.detach(), teacher, student_mask, teacher_mask)
    aligned = positions >= 0
    distance = (student - take_aligned(teacher, positions)).square().sum(-1)
    return torch.where(aligned, distance, 0.0).sum() / aligned.sum().clamp(min=1)
