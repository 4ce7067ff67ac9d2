"""What the teacher says of a text is computed once and read back as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated_vectors import WordEncoder

from drdecr.encoder.settings import Expansion, StudentSettings
from drdecr.encoder.types import Encoded, Kind
from training import teacher as teacher_module
from training.teacher import LiveTeacher, TeacherVectors

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


@pytest.mark.parametrize(
    "left",
    [
        # As it was when the second block began; with part of that block's vectors; with part of its counts too.
        {},
        {"vectors.f16": b"12345"},
        {"vectors.f16": b"1" * 200, "counts.i64": b"12345678123"},
    ],
)
def test_write_that_was_cut_off_goes_on_after_its_last_whole_block(
    left: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*TEXTS, "more"]

    class Stopped(WordEncoder):
        def encode(self, *args: object, **kwargs: object) -> Encoded:
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().encode(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher_module, "_TEXTS_AT_ONCE", 2)
    with pytest.raises(KeyboardInterrupt):
        TeacherVectors.compute(Stopped(), texts, tmp_path / "teacher")
    assert not (tmp_path / "teacher" / "done.json").exists()
    for name, more in left.items():
        with (tmp_path / "teacher" / name).open("ab") as file:
            file.write(more)
    encoder = WordEncoder()
    moved: list[int] = []
    found = TeacherVectors.compute(encoder, texts, tmp_path / "teacher", progress=moved.append)
    assert encoder.calls == [2, 1]
    assert sum(moved) == len(texts)
    assert found.offsets.tolist() == [0, 4, 4, 7, 9, 10]
    assert np.array_equal(found.vectors, WordEncoder().encode(texts, "passage").vectors.astype(np.float16))


def test_vectors_that_were_lost_with_the_disks_cache_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_module, "_TEXTS_AT_ONCE", 2)
    folder = tmp_path / "teacher"
    TeacherVectors.compute(WordEncoder(), TEXTS, folder)
    (folder / "done.json").unlink()
    with (folder / "vectors.f16").open("ab") as file:
        file.truncate(20)
    encoder = WordEncoder()
    found = TeacherVectors.compute(encoder, TEXTS, folder)
    assert encoder.calls == [2, 2]
    assert np.array_equal(found.vectors, WordEncoder().encode(TEXTS, "passage").vectors.astype(np.float16))


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


class Marked(WordEncoder):
    """Reads a query in another way than a passage, as ColBERT's markers make it."""

    def __init__(self) -> None:
        super().__init__(dim=8)
        self.spec = replace(self.spec, sides_apart=True)

    def encode(self, texts: Sequence[str], kind: Kind, **kwargs: object) -> Encoded:
        found = super().encode(texts, kind, **kwargs)  # type: ignore[arg-type]
        return replace(found, vectors=-found.vectors) if kind == "query" else found


@pytest.mark.parametrize("stored", [True, False])
def test_english_of_a_query_is_read_as_the_teacher_reads_queries(tmp_path: Path, stored: bool) -> None:
    moved: list[int] = []
    teacher = (
        TeacherVectors.compute(Marked(), TEXTS, tmp_path / "teacher", progress=moved.append)
        if stored
        else LiveTeacher(Marked(), TEXTS)
    )
    for kind, sign in (("query", -1), ("passage", 1)):
        vectors, mask = teacher.padded([2, 0], torch.device("cpu"), kind)
        expected = sign * WordEncoder(dim=8).encode([TEXTS[2], TEXTS[0]], "passage").vectors
        assert np.allclose(vectors[mask], expected, atol=1e-3)
    if stored:
        assert sum(moved) == 2 * len(TEXTS)
        again = TeacherVectors.compute(stopped := Marked(), TEXTS, tmp_path / "teacher")
        assert not stopped.calls
        assert again.queries is not None


@pytest.mark.parametrize(
    ("changed", "apart"),
    [
        ({}, False),
        ({"query_length": 16}, False),
        ({"query_weights": True}, False),
        ({"query_prefix": (4,), "passage_prefix": (4,)}, False),
        ({"query_prefix": (4,), "passage_prefix": (5,)}, True),
        ({"passage_skip": (7,)}, True),
        ({"query_expansion": Expansion(token_id=4, length=32)}, True),
    ],
)
def test_settings_say_whether_both_sides_are_read_alike(changed: dict[str, object], apart: bool) -> None:
    settings = StudentSettings.model_validate({"name": "any", "dim": 8, "pad_id": 0, **changed})
    assert settings.spec("f").sides_apart is apart
