"""Which teacher token each student token learns from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Below any cosine, so that a used or missing token is never the best match.
_USED = -2.0
# The released code's: what keeps a zero vector's cosine finite, and a distance above any other.
_EPSILON = 1e-8
_TAKEN = 10.0


@torch.no_grad()
def align_tokens(student: Tensor, teacher: Tensor, student_mask: Tensor, teacher_mask: Tensor) -> Tensor:
    """Match each student token to the teacher token it should learn from.

    Greedy one-to-one matching by cosine (Li et al. 2022, section 3.2) over real tokens only: the closest pair of a
    text is matched first, then the closest of what is left. The first in row-major order (student, teacher) wins a
    tie. Both sides may come from different tokenizers.

    Shapes: student (batch, s, dim), teacher (batch, t, dim), masks (batch, s) and (batch, t), bool.
    Returns int64 (batch, s): the teacher position, or -1 where no teacher token is left.
    """
    similarity = functional.normalize(student, dim=-1) @ functional.normalize(teacher, dim=-1).transpose(1, 2)
    usable = student_mask.unsqueeze(2) & teacher_mask.unsqueeze(1)
    similarity = similarity.masked_fill(~usable, _USED)
    batch, rows, columns = similarity.shape
    positions = torch.full((batch, rows), -1, dtype=torch.int64, device=student.device)
    texts = torch.arange(batch, device=student.device)
    rounds = int(torch.minimum(student_mask.sum(1), teacher_mask.sum(1)).max()) if batch else 0
    for _ in range(rounds):
        best, flat = similarity.view(batch, -1).max(dim=1)
        row, column = flat // columns, flat % columns
        matched = best > _USED
        positions[texts[matched], row[matched]] = column[matched]
        similarity[texts, row] = _USED
        similarity[texts, :, column] = _USED
    return positions


@torch.no_grad()
def nearest_tokens(student: Tensor, teacher: Tensor, student_mask: Tensor, teacher_mask: Tensor) -> Tensor:
    """Match each student token to the teacher token nearest to it by cosine; several may share one.

    Shapes and result as for `align_tokens`; -1 only for padding and where a text has no teacher token.
    """
    similarity = functional.normalize(student, dim=-1) @ functional.normalize(teacher, dim=-1).transpose(1, 2)
    best, positions = similarity.masked_fill(~teacher_mask.unsqueeze(1), _USED).max(dim=2)
    return positions.masked_fill(~student_mask | (best <= _USED), -1)


@torch.no_grad()
def literal_alignment(student: Tensor, teacher: Tensor) -> Tensor:
    """Match every position, padding and special tokens too, as the released code does.

    That code takes, as often as there are positions, the least distance 1 - cosine (eps 1e-8, the first in row-major
    order of teacher and student on ties), swaps the two teacher rows, and gives the found row and column the distance
    10; then it applies the swaps to the teacher's vectors. That is a permutation, though not always the greedy
    matching: a zero vector has the distance 1 to everything and is matched late. Batched on the device.

    Shapes: student and teacher (batch, positions, dim), equally long. Returns int64 (batch, positions), as
    `align_tokens` does; always a permutation.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(f"both sides need one length, got {student.shape[1]} and {teacher.shape[1]}")
    batch, length, _ = student.shape
    unit = [side / side.norm(dim=-1, keepdim=True).clamp(min=_EPSILON) for side in (teacher, student)]
    distance = 1 - unit[0] @ unit[1].transpose(1, 2)
    texts = torch.arange(batch, device=student.device)
    order = torch.arange(length, device=student.device).repeat(batch, 1)
    for _ in range(length):
        flat = distance.view(batch, -1).min(dim=1).indices
        row, column = flat // length, flat % length
        # The teacher token in `row` goes to position `column`; the one that was there takes its place.
        for table in (distance, order):
            table[texts, row], table[texts, column] = table[texts, column], table[texts, row]
        distance[texts, column] = _TAKEN
        distance[texts, :, column] = _TAKEN
    return order


def take_aligned(teacher: Tensor, positions: Tensor) -> Tensor:
    """Put teacher tokens where the student's are: (batch, t, dim) by (batch, s) -> (batch, s, dim).

    Rows at position -1 hold the first teacher token; leave them out by `positions >= 0`.
    """
    index = positions.clamp(min=0).unsqueeze(-1).expand(-1, -1, teacher.shape[-1])
    return torch.gather(teacher, 1, index)
