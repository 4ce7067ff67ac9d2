"""What the teacher says of a text is computed once and read back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated_vectors import WordEncoder

from drdecr.encoder.types import Encoded
from training import teacher as teacher_module
from training.teacher import TeacherVectors

TEXTS = ["which package plays music", "", "an image viewer", "plays music"]


def test_vectors_are_the_teachers_in_any_order_and_padded(tmp_path: Path) -> None:
    encoder = WordEncoder(dim=8)
    expected: Encoded = encoder.encode(TEXTS, "passage")
    found = TeacherVectors.compute(encoder, TEXTS, tmp_path / "teacher")
    order = [3, 1, 0, 0]
    vectors, mask = found.padded(order, torch.device("cpu"))
    assert vectors.dtype == torch.float32
    assert mask.sum(1).tolist() == [2, 0, 4, 4]
    for row, text in enumerate(order):
        assert np.allclose(vectors[row][mask[row]], expected.tokens_of(text), atol=1e-3)
        assert not bool(vectors[row][~mask[row]].any())


def test_same_texts_are_encoded_once(tmp_path: Path) -> None:
    encoder = WordEncoder()
    first = TeacherVectors.compute(encoder, TEXTS, tmp_path / "teacher")
    again = TeacherVectors.compute(encoder, TEXTS, tmp_path / "teacher")
    assert encoder.calls == [len(TEXTS)]
    assert np.array_equal(first.vectors, again.vectors)
    assert np.array_equal(first.offsets, again.offsets)


def test_long_lists_are_encoded_in_parts_with_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_module, "_TEXTS_AT_ONCE", 3)
    encoder = WordEncoder()
    moved: list[int] = []
    found = TeacherVectors.compute(encoder, TEXTS * 2, tmp_path / "teacher", progress=moved.append)
    assert encoder.calls == moved == [3, 3, 2]
    assert np.array_equal(found.vectors, WordEncoder().encode(TEXTS * 2, "passage").vectors.astype(np.float16))


@pytest.mark.parametrize("texts", [TEXTS[:3], [*TEXTS, "more"], TEXTS[::-1], ["which package", *TEXTS[1:]]])
def test_other_texts_are_encoded_again(texts: list[str], tmp_path: Path) -> None:
    encoder = WordEncoder()
    TeacherVectors.compute(encoder, TEXTS, tmp_path / "teacher")
    found = TeacherVectors.compute(encoder, texts, tmp_path / "teacher")
    assert encoder.calls == [len(TEXTS), len(texts)]
    assert np.array_equal(found.vectors, WordEncoder().encode(texts, "passage").vectors.astype(np.float16))


def test_another_teacher_encodes_again(tmp_path: Path) -> None:
    TeacherVectors.compute(WordEncoder(name="one"), TEXTS, tmp_path / "teacher")
    other = WordEncoder(name="other")
    TeacherVectors.compute(other, TEXTS, tmp_path / "teacher")
    assert other.calls == [len(TEXTS)]


def test_write_that_was_cut_off_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(WordEncoder):
        def encode(self, *args: object, **kwargs: object) -> Encoded:
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().encode(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher_module, "_TEXTS_AT_ONCE", 2)
    with pytest.raises(KeyboardInterrupt):
        TeacherVectors.compute(Stopped(), TEXTS, tmp_path / "teacher")
    assert not (tmp_path / "teacher" / "done.json").exists()
    encoder = WordEncoder()
    found = TeacherVectors.compute(encoder, TEXTS, tmp_path / "teacher")
    assert encoder.calls == [2, 2]
    assert found.offsets.tolist() == [0, 4, 4, 7, 9]


def test_older_vectors_are_not_vouched_for_while_new_ones_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    TeacherVectors.compute(WordEncoder(name="one"), TEXTS, folder)

    class Looking(WordEncoder):
        def encode(self, *args: object, **kwargs: object) -> Encoded:
            assert not (folder / "done.json").exists()
            return super().encode(*args, **kwargs)  # type: ignore[arg-type]

    looking = Looking(name="other")
    TeacherVectors.compute(looking, TEXTS, folder)
    assert looking.calls == [len(TEXTS)]


def test_texts_without_a_token_have_empty_rows(tmp_path: Path) -> None:
    found = TeacherVectors.compute(WordEncoder(dim=8), ["", "!"], tmp_path / "teacher")
    vectors, mask = found.padded([0, 1], torch.device("cpu"))
    assert vectors.shape == (2, 1, 8)
    assert not bool(mask.any())
