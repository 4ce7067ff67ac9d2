"""Alignment by optimal transport against a plain Sinkhorn loop and the best possible matching; leftovers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from training.alignment import align_tokens, nearest_tokens, take_aligned
from training.losses.token_kd import token_kd
from training.transport import transport_tokens


def unit(*shape: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def mask_of(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)


@given(seed=st.integers(0, 10_000), lengths=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1))
@settings(deadline=None, max_examples=40)
def test_plan_is_a_plain_sinkhorn_over_real_tokens(seed: int, lengths: list[tuple[int, int]]) -> None:
    student_mask, teacher_mask = mask_of(*(s for s, _ in lengths)), mask_of(*(t for _, t in lengths))
    student, teacher = unit(*student_mask.shape, 6, seed=seed), unit(*teacher_mask.shape, 6, seed=seed + 1)
    plan = transport_tokens(student, teacher, student_mask, teacher_mask, sharpness=0.2, rounds=200)
    for text, (s, t) in enumerate(lengths):
        kernel = np.exp((student[text, :s] @ teacher[text, :t].T).double().numpy() / 0.2)
        rows = np.ones(s)
        for _ in range(200):
            columns = (1 / t) / (kernel.T @ rows)
            rows = (1 / s) / (kernel @ columns)
        np.testing.assert_allclose(plan[text, :s, :t].numpy(), rows[:, None] * kernel * columns, atol=1e-4)
    outside = ~(student_mask.unsqueeze(2) & teacher_mask.unsqueeze(1))
    assert bool((plan[outside] == 0).all())


def test_sharp_plan_is_the_best_matching() -> None:
    student, teacher = unit(1, 6, 8, seed=1), unit(1, 6, 8, seed=2)
    everything = mask_of(6)
    plan = transport_tokens(student, teacher, everything, everything, sharpness=0.01, rounds=2000)
    _, best = linear_sum_assignment((student[0] @ teacher[0].T).numpy(), maximize=True)
    assert plan[0].argmax(1).tolist() == best.tolist()


def test_text_without_tokens_carries_nothing() -> None:
    plan = transport_tokens(unit(2, 3, 4), unit(2, 2, 4), mask_of(3, 0), mask_of(0, 2))
    assert plan.shape == (2, 3, 2) and bool((plan == 0).all())
    assert token_kd(unit(1, 3, 4), mask_of(3), unit(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool)).item() == 0


def test_token_kd_over_a_plan_is_the_mean_distance_by_shares() -> None:
    student, teacher = unit(2, 5, 8, seed=3), unit(2, 4, 8, seed=4)
    student_mask, teacher_mask = mask_of(5, 3), mask_of(2, 4)
    plan = transport_tokens(student, teacher, student_mask, teacher_mask)
    distances = torch.cdist(student, teacher).square()
    total = (plan / plan.sum(2, keepdim=True).clamp(min=1e-12) * distances).sum(2)[student_mask]
    found = token_kd(student, student_mask, teacher, teacher_mask, alignment="transport")
    torch.testing.assert_close(found, total.mean())


def test_leftover_tokens_are_dropped_or_learn_from_the_nearest() -> None:
    student, teacher = unit(1, 6, 8, seed=5), unit(1, 2, 8, seed=6)
    mask, teacher_mask = mask_of(6), mask_of(2)
    positions = align_tokens(student, teacher, mask, teacher_mask)
    nearest = nearest_tokens(student, teacher, mask, teacher_mask)
    distances = torch.cdist(student, teacher).square()[0]
    matched = [(at, int(to)) for at, to in enumerate(positions[0]) if to >= 0]
    dropped = torch.stack([distances[at, to] for at, to in matched]).mean()
    kept = torch.stack(
        [distances[at, to if to >= 0 else nearest[0, at]] for at, to in enumerate(positions[0])]
    ).mean()
    assert len(matched) == 2
    torch.testing.assert_close(token_kd(student, mask, teacher, teacher_mask), dropped)
    torch.testing.assert_close(token_kd(student, mask, teacher, teacher_mask, leftovers="nearest"), kept)
    all_nearest = (student - take_aligned(teacher, nearest)).square().sum(-1).mean()
    torch.testing.assert_close(token_kd(student, mask, teacher, teacher_mask, alignment="nearest"), all_nearest)


@pytest.mark.parametrize("alignment", ["greedy", "nearest", "transport"])
def test_no_alignment_has_a_gradient_to_the_teacher_or_padding(alignment: str) -> None:
    student = unit(2, 5, 8, seed=7).requires_grad_()
    token_kd(student, mask_of(5, 2), unit(2, 3, 8), mask_of(3, 1), alignment=alignment).backward()  # type: ignore[arg-type]
    assert student.grad is not None and bool(torch.isfinite(student.grad).all())
    assert float(student.grad[1, 2:].abs().sum()) == 0
