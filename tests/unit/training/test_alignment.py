"""The alignment against a plain greedy loop and against the best possible matching."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from training.alignment import align_tokens, nearest_tokens, take_aligned

Masks = NDArray[np.bool_]


def cosines(student: Tensor, teacher: Tensor) -> NDArray[np.float64]:
    unit = [functional.normalize(side.double(), dim=-1) for side in (student, teacher)]
    return (unit[0] @ unit[1].transpose(-1, -2)).numpy()


def greedy(similarity: NDArray[np.float64], student_mask: Masks, teacher_mask: Masks) -> list[int]:
    """Take the closest pair of unused tokens until one side is used up; the first in row-major order of equals."""
    positions = [-1] * len(student_mask)
    used: set[int] = set()
    pairs = [(row, column) for row in np.flatnonzero(student_mask) for column in np.flatnonzero(teacher_mask)]
    for row, column in sorted(pairs, key=lambda pair: (-similarity[pair], pair)):
        if positions[row] == -1 and column not in used:
            positions[row] = int(column)
            used.add(int(column))
    return positions


def texts(seed: int, batch: int, longest: int, *, dim: int = 6, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Return the token vectors of some texts and a mask with holes; many vectors are equal where `ties` says so."""
    random = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, longest, generator=random) < 0.7
    if not ties:
        return torch.randn(batch, longest, dim, generator=random), mask
    axis = functional.one_hot(torch.randint(3, (batch, longest), generator=random), dim).float()
    sign = torch.randint(2, (batch, longest, 1), generator=random) * 2 - 1
    return axis * sign, mask


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    student_tokens=st.integers(1, 9),
    teacher_tokens=st.integers(1, 9),
    ties=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_alignment_equals_a_plain_greedy_loop(
    seed: int, batch: int, student_tokens: int, teacher_tokens: int, ties: bool
) -> None:
    student, student_mask = texts(seed, batch, student_tokens, ties=ties)
    teacher, teacher_mask = texts(seed + 1, batch, teacher_tokens, ties=ties)
    found = align_tokens(student, teacher, student_mask, teacher_mask)
    assert found.dtype == torch.int64
    similarity = cosines(student, teacher)
    for text in range(batch):
        expected = greedy(similarity[text], student_mask[text].numpy(), teacher_mask[text].numpy())
        assert found[text].tolist() == expected


@given(seed=st.integers(0, 10_000), student_tokens=st.integers(1, 12), teacher_tokens=st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_alignment_is_one_to_one_and_as_long_as_the_shorter_side(
    seed: int, student_tokens: int, teacher_tokens: int
) -> None:
    student, student_mask = texts(seed, 3, student_tokens)
    teacher, teacher_mask = texts(seed + 1, 3, teacher_tokens)
    found = align_tokens(student, teacher, student_mask, teacher_mask)
    assert bool((found[~student_mask] == -1).all())
    for text in range(3):
        taken = found[text][found[text] >= 0].tolist()
        assert len(taken) == len(set(taken)) == min(int(student_mask[text].sum()), int(teacher_mask[text].sum()))
        assert bool(teacher_mask[text][taken].all())


@given(seed=st.integers(0, 10_000), student_tokens=st.integers(1, 10), teacher_tokens=st.integers(1, 10))
@settings(deadline=None, max_examples=60)
def test_total_similarity_is_never_better_than_the_best_matching(
    seed: int, student_tokens: int, teacher_tokens: int
) -> None:
    student, _ = texts(seed, 1, student_tokens)
    teacher, _ = texts(seed + 1, 1, teacher_tokens)
    everything = [torch.ones(1, tokens, dtype=torch.bool) for tokens in (student_tokens, teacher_tokens)]
    positions = align_tokens(student, teacher, *everything)[0].numpy()
    similarity = cosines(student, teacher)[0]
    rows = np.flatnonzero(positions >= 0)
    best = similarity[linear_sum_assignment(similarity, maximize=True)].sum()
    ours = similarity[rows, positions[rows]].sum()
    assert ours <= best + 1e-9
    # Greedy matching of weights above 0 reaches at least half of the best; cosines are shifted to be that.
    assert (ours + len(rows)) * 2 >= best + len(rows) - 1e-9


def test_reordered_text_is_aligned_as_by_the_best_matching() -> None:
    student, _ = texts(3, 1, 12, dim=16)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    noise = 0.1 * torch.randn(student.shape, generator=torch.Generator().manual_seed(1))
    teacher = (student + noise)[:, order]
    mask = torch.ones(1, 12, dtype=torch.bool)
    assert align_tokens(student, teacher, mask, mask)[0].tolist() == torch.argsort(order).tolist()


def test_text_without_tokens_on_either_side_aligns_nothing() -> None:
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 2, 4)
    student_mask = torch.tensor([[False] * 3, [True] * 3])
    teacher_mask = torch.tensor([[True] * 2, [False] * 2])
    for align in (align_tokens, nearest_tokens):
        assert align(student, teacher, student_mask, teacher_mask).tolist() == [[-1] * 3, [-1] * 3]
    assert align_tokens(student[:0], teacher[:0], student_mask[:0], teacher_mask[:0]).shape == (0, 3)


def test_padding_that_would_match_best_is_not_matched() -> None:
    student = torch.eye(3).unsqueeze(0)
    teacher = torch.stack([student[0, 0], student[0, 1], -student[0, 0]]).unsqueeze(0)
    real = torch.ones(1, 3, dtype=torch.bool)
    teacher_mask = torch.tensor([[False, True, True]])
    assert align_tokens(student, teacher, real, teacher_mask).tolist() == [[-1, 1, 2]]
    assert nearest_tokens(student, teacher, real, teacher_mask).tolist() == [[1, 1, 1]]
    student_mask = torch.tensor([[False, True, True]])
    assert align_tokens(student, teacher, student_mask, real).tolist() == [[-1, 1, 0]]


def test_nearest_tokens_may_share_a_teacher_token() -> None:
    student, student_mask = texts(5, 4, 7)
    teacher, _ = texts(6, 4, 5)
    teacher_mask = torch.tensor([[True, False, True, True, False]] * 4)
    found = nearest_tokens(student, teacher, student_mask, teacher_mask)
    similarity = np.where(teacher_mask.numpy()[:, None], cosines(student, teacher), -np.inf)
    expected = np.where(student_mask.numpy(), similarity.argmax(2), -1)
    assert found.tolist() == expected.tolist()
    assert len(set(found[0][found[0] >= 0].tolist())) < int(student_mask[0].sum())


def test_taken_rows_are_the_aligned_teacher_tokens() -> None:
    teacher = torch.arange(12.0).reshape(2, 3, 2)
    taken = take_aligned(teacher, torch.tensor([[2, 0, 1, -1], [1, -1, 2, 0]]))
    assert taken[0].tolist() == teacher[0, [2, 0, 1, 0]].tolist()
    assert taken[1].tolist() == teacher[1, [1, 0, 2, 0]].tolist()
