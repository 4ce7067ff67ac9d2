"""The loss over candidate lists against sentence-transformers' own, and against loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.losses import (
    MultiVectorDistillKLDivLoss,
    MultiVectorMultipleNegativesRankingLoss,
)
from torch import Tensor
from torch.nn import functional

from drdecr.encoder.torch_runtime import load_model
from training.candidates.collator import passage_numbers
from training.candidates.lists import Candidates
from training.literal import encode
from training.losses.ranking import RankingLoss, score_candidates
from training.recipe import RankingStage

QUERIES = ["which player ?", "sound"]
PASSAGES = [["the sound player", "music"], ["plays sound", "which package , the player"]]
TASKS = ("query", "document")
SCORES = torch.tensor([[3.0, 1.0], [0.5, 2.0]])


def stage(**settings: Any) -> RankingStage:
    return RankingStage.model_validate({"kind": "ranking", "name": "a", "steps": 1, **settings})


@pytest.fixture
def student(plain_student: Path) -> MultiVectorEncoder:
    model = load_model(plain_student, device="cpu")
    model.eval()
    return model


def ours(model: MultiVectorEncoder, english: list[str] | None = None) -> list[dict[str, Any]]:
    columns = [(QUERIES, "query"), ([one for row in PASSAGES for one in row], "document")]
    return [model.preprocess(texts, task=task) for texts, task in columns] + [
        model.preprocess(texts, task="query") for texts in [english] if texts
    ]


def numbers(answers: dict[str, set[str]] | None = None) -> Tensor:
    rows = [Candidates(query, None, tuple(row)) for query, row in zip(QUERIES, PASSAGES, strict=True)]
    return passage_numbers(rows, answers or {})


def theirs(model: MultiVectorEncoder) -> list[dict[str, Any]]:
    columns = [QUERIES, *([row[way] for row in PASSAGES] for way in range(2))]
    return [model.preprocess(texts, task="document" if at else "query") for at, texts in enumerate(columns)]


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_distillation_equals_the_librarys(student: MultiVectorEncoder, temperature: float) -> None:
    expected = MultiVectorDistillKLDivLoss(student, temperature=temperature)(theirs(student), SCORES)
    found = RankingLoss(student, stage(objective="kl", temperature=temperature))(ours(student), SCORES)
    torch.testing.assert_close(found, expected)
    assert found.item() > 0.01


def test_contrastive_loss_with_the_batch_equals_the_librarys(student: MultiVectorEncoder) -> None:
    expected = MultiVectorMultipleNegativesRankingLoss(student)(theirs(student))
    found = RankingLoss(student, stage(objective="cross-entropy", in_batch=True))(ours(student), numbers())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("answer", [PASSAGES[1][0], PASSAGES[0][1]])
def test_passage_that_answers_the_query_too_is_no_negative_of_it(student: MultiVectorEncoder, answer: str) -> None:
    loss = RankingLoss(student, stage(objective="cross-entropy", in_batch=True))
    found = loss(ours(student), numbers({QUERIES[0]: {answer}}))
    everything = torch.zeros(2, 4)
    flat = [text for row in PASSAGES for text in row]
    for row, query in enumerate(QUERIES):
        for at, text in enumerate(flat):
            pair = [student.preprocess([query], task="query"), student.preprocess([text], task="document")]
            everything[row, at] = loss._scores(
                *(encode(student, one, task) for one, task in zip(pair, TASKS, strict=True)), 1
            )
    everything[0, flat.index(answer)] = -torch.inf
    torch.testing.assert_close(found, functional.cross_entropy(everything, torch.tensor([0, 2])))
    assert found < loss(ours(student), numbers())


def test_answers_of_a_query_are_those_of_all_its_rows_and_those_that_are_known() -> None:
    rows = [
        Candidates("frage", "question", ("one", "other")),
        Candidates("вопрос", "question", ("two", "one")),
        Candidates("ohne", None, ("three", "two")),
    ]
    first, second, third = passage_numbers(rows, {"question": {"four"}, "ohne": {"other"}}).tolist()
    one, other, two = first[0], first[1], second[0]
    assert first[0] == second[1] and second[0] == third[1]
    assert set(first[2:]) == set(second[2:]) and len(set(first[2:])) == 3 and {one, two} < set(first[2:])
    assert set(third[2:]) == {third[0], other, -1}


def test_contrastive_loss_of_own_candidates_sees_no_other_row(student: MultiVectorEncoder) -> None:
    loss = RankingLoss(student, stage(objective="cross-entropy"))
    both = loss(ours(student), SCORES)
    alone = []
    for at in range(2):
        queries, passages = ours(student)
        one = {key: value[at : at + 1] for key, value in queries.items() if isinstance(value, Tensor)}
        two = {key: value[2 * at : 2 * at + 2] for key, value in passages.items() if isinstance(value, Tensor)}
        alone.append(loss([one, two], SCORES[:1]))
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_live_teacher_gives_the_targets_and_is_never_trained(
    student: MultiVectorEncoder, plain_student: Path
) -> None:
    teacher = load_model(plain_student, device="cpu")
    loss = RankingLoss(student, stage(scores="live"), teacher=teacher)
    # A teacher that is the student, asked the same: nothing to learn.
    assert loss(ours(student, QUERIES), SCORES).item() == pytest.approx(0, abs=1e-7)
    other = loss(ours(student, ["the music", "package ?"]), SCORES)
    assert other.item() > 1e-6
    other.backward()
    assert not [name for name, _ in loss.named_parameters() if "teacher" in name]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_features_are_left_as_they_were(student: MultiVectorEncoder) -> None:
    features = ours(student)
    before = [dict(one) for one in features]
    RankingLoss(student, stage())(features, SCORES)
    assert [one.keys() for one in features] == [one.keys() for one in before]
    for one, was in zip(features, before, strict=True):
        assert torch.equal(one["attention_mask"], was["attention_mask"])


def test_sentence_vectors_count_by_their_weight(two_stream_student: Path) -> None:
    model = load_model(two_stream_student, device="cpu")
    model.eval()
    with torch.no_grad():
        without = RankingLoss(model, stage())(ours(model), SCORES)
        found = RankingLoss(model, stage(), sentence_weight=2.0)(ours(model), SCORES)
        queries, passages = (
            model(one, task=task) for one, task in zip(ours(model), ("query", "document"), strict=True)
        )
        scores = score_candidates(
            queries["token_embeddings"],
            passages["token_embeddings"].reshape(2, 2, -1, 16),
            queries["attention_mask"].bool(),
            passages["attention_mask"].bool().reshape(2, 2, -1),
        )
        dots = (queries["sentence_embedding"] @ passages["sentence_embedding"].T)[[[0], [1]], [[0, 1], [2, 3]]]
        scores = scores + 2.0 * queries["attention_mask"].sum(1, keepdim=True) * dots
        expected = torch.nn.functional.kl_div(
            scores.log_softmax(-1), SCORES.log_softmax(-1), log_target=True, reduction="batchmean"
        )
    torch.testing.assert_close(found, expected)
    assert float(found) != pytest.approx(float(without), abs=1e-4)


def test_l2_equals_loops_with_zero_vectors_inside_the_maximum() -> None:
    chance = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(2, 3, 4, generator=chance), dim=-1)
    passages = torch.nn.functional.normalize(torch.randn(2, 2, 5, 4, generator=chance), dim=-1)
    passages[:, :, 0] = 0
    query_mask = torch.tensor([[True, True, True], [True, False, True]])
    passage_mask = torch.ones(2, 2, 5, dtype=torch.bool)
    passage_mask[1, 0, 3:] = False
    found = score_candidates(queries, passages, query_mask, passage_mask, similarity="l2")
    for row in range(2):
        for way in range(2):
            distances = torch.cdist(queries[row], passages[row, way]).square()
            best = (-distances).masked_fill(~passage_mask[row, way], -torch.inf).max(dim=1).values
            assert float(found[row, way]) == pytest.approx(float(best[query_mask[row]].sum()), abs=1e-4)
    # A query token never scores below a zero vector, at distance 1.
    assert bool((found >= -query_mask.sum(1, keepdim=True) - 1e-4).all())
    mean = score_candidates(queries, passages, query_mask, passage_mask, similarity="l2", mean=True)
    torch.testing.assert_close(mean, found / query_mask.sum(1, keepdim=True))
