"""A teacher's tokens in another width: as near to each other as before, and the same for every stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fabricated_vectors import WordEncoder
from torch.nn import functional

from training.token_map import token_map

WORDS = [f"word{at} other{at % 7}" for at in range(40)]


def test_wider_student_sees_the_same_cosines(tmp_path: Path) -> None:
    teacher = WordEncoder(dim=16)
    found = token_map(teacher, 24, WORDS, tmp_path)
    assert found is not None and not list(tmp_path.iterdir())
    vectors = torch.from_numpy(teacher.encode(WORDS, "passage").vectors)
    torch.testing.assert_close((vectors @ found) @ (vectors @ found).T, vectors @ vectors.T)


def test_narrower_student_sees_the_leading_directions(tmp_path: Path) -> None:
    teacher = WordEncoder(dim=16)
    found = token_map(teacher, 12, WORDS, tmp_path)
    assert found is not None and found.shape == (16, 12)
    torch.testing.assert_close(found.T @ found, torch.eye(12), atol=1e-4, rtol=0)
    vectors = torch.from_numpy(teacher.encode(WORDS, "passage").vectors)
    kept = functional.normalize(vectors @ found, dim=-1)
    errors = (kept @ kept.T - vectors @ vectors.T).abs().mean()
    chance = functional.normalize(vectors @ torch.linalg.qr(torch.randn(16, 12))[0], dim=-1)
    assert errors < (chance @ chance.T - vectors @ vectors.T).abs().mean()


def test_map_is_found_once_for_a_teacher_and_a_width(tmp_path: Path) -> None:
    teacher = WordEncoder(dim=16)
    first = token_map(teacher, 8, WORDS, tmp_path)
    asked = len(teacher.calls)
    again = token_map(teacher, 8, ["something else"], tmp_path)
    assert first is not None and again is not None and len(teacher.calls) == asked
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    assert token_map(WordEncoder(dim=16, name="another"), 8, WORDS, tmp_path) is not None
    assert len(list(tmp_path.iterdir())) == 2


def test_same_width_needs_none(tmp_path: Path) -> None:
    assert token_map(WordEncoder(dim=16), 16, WORDS, tmp_path) is None
