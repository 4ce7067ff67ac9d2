"""The objectives against their formulas, and what their gradients reach."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder
from torch import Tensor
from torch.nn import functional

from drdecr.encoder.torch_runtime import load_model
from drdecr.errors import ModelError
from training.fit import freeze
from training.losses.distillation import DistillationLoss, mean_direction
from training.losses.labelled import labelled_cross_entropy
from training.losses.maxsim import maxsim
from training.losses.projection import neighbour_kd
from training.losses.relevance_kd import relevance_kd
from training.losses.token_kd import token_kd
from training.recipe import LearningRates, ObjectiveWeights
from training.teacher import TeacherVectors

CONTEXT_WIDTH = 32
QUERIES = ["hallo welt", "привет", "music player"]
PASSAGES = ["hello world", "hello", "plays music and sound"]


def unit(*shape: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def mask_of(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)


def test_token_kd_is_zero_for_the_teachers_tokens_in_any_order() -> None:
    teacher, mask = unit(2, 6, 8), mask_of(6, 4)
    order = torch.tensor([[3, 1, 5, 0, 2, 4], [2, 0, 3, 1, 5, 4]])
    student = torch.stack([teacher[text, order[text]] for text in range(2)])
    assert token_kd(student, mask, teacher, mask).item() == pytest.approx(0, abs=1e-12)
    assert token_kd(student + 0.1, mask, teacher, mask).item() > 0.01


def test_token_kd_is_the_mean_squared_distance_of_aligned_tokens_only() -> None:
    student = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, -0.8]]])
    teacher = torch.tensor([[[0.8, 0.6]]])
    everything, one = mask_of(3), mask_of(1)
    # Cosines .8, .6 and 0: only the first has a teacher token left.
    assert token_kd(student, everything, teacher, one).item() == pytest.approx(0.2**2 + 0.6**2)
    two = torch.cat([teacher, torch.tensor([[[0.0, 3.0]]])], dim=1)
    assert token_kd(student, everything, two, mask_of(2)).item() == pytest.approx((0.2**2 + 0.6**2 + 2.0**2) / 2)


def test_token_kd_passes_over_pairs_below_the_threshold() -> None:
    student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).requires_grad_()
    teacher = torch.tensor([[[0.8, 0.6], [-0.8, 0.6]]])
    both = mask_of(2)
    # Cosines of the pairs: .8 and .6.
    for alignment in ("greedy", "nearest"):
        loss = token_kd(student, both, teacher, both, alignment=alignment, threshold=0.7)
        assert loss.item() == pytest.approx(0.2**2 + 0.6**2)
    (gradient,) = torch.autograd.grad(loss, student)
    assert (gradient.abs().sum(-1) > 0).tolist() == [[True, False]]
    assert token_kd(student, both, teacher, both, threshold=0.9).item() == 0


def test_token_kd_has_no_gradient_through_padding_or_unaligned_tokens() -> None:
    student = unit(2, 5, 8, seed=1).requires_grad_()
    teacher = unit(2, 4, 8, seed=2).requires_grad_()
    student_mask, teacher_mask = mask_of(5, 2), mask_of(3, 4)
    token_kd(student, student_mask, teacher, teacher_mask).backward()
    assert student.grad is not None and teacher.grad is not None
    reached = student.grad.abs().sum(-1) > 0
    assert reached.sum(1).tolist() == [3, 2]
    assert not bool((reached & ~student_mask).any())
    assert not bool(((teacher.grad.abs().sum(-1) > 0) & ~teacher_mask).any())


def test_token_kd_of_nothing_is_zero_and_has_a_gradient() -> None:
    student = unit(1, 2, 4).requires_grad_()
    loss = token_kd(student, mask_of(2), unit(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None and student.grad.abs().sum().item() == 0


def test_relevance_kd_is_zero_for_equal_scores_and_positive_otherwise() -> None:
    scores = torch.tensor([[0.8, 0.3, 0.1], [0.2, 0.5, 0.4]])
    assert relevance_kd(scores, scores.clone(), 0.05).item() == pytest.approx(0, abs=1e-7)
    # A softmax does not see what is added to all candidates of a query.
    assert relevance_kd(scores + 3, scores, 0.05).item() == pytest.approx(0, abs=1e-5)
    assert relevance_kd(scores.flip(1), scores, 0.05).item() > 0.1


def test_relevance_kd_is_the_divergence_of_the_student_from_the_teacher() -> None:
    student, teacher = [[0.7, 0.1, 0.2], [0.3, 0.6, 0.5]], [[0.2, 0.4, 0.3], [0.9, 0.1, 0.2]]
    temperature = 0.5

    def softmax(row: list[float]) -> list[float]:
        total = sum(math.exp(score / temperature) for score in row)
        return [math.exp(score / temperature) / total for score in row]

    def divergence(of: list[list[float]], to: list[list[float]]) -> float:
        return sum(
            p * math.log(p / q)
            for row, other in zip(of, to, strict=True)
            for p, q in zip(softmax(row), softmax(other), strict=True)
        ) / len(of)

    found = relevance_kd(torch.tensor(student), torch.tensor(teacher), temperature).item()
    assert found == pytest.approx(divergence(teacher, student), abs=1e-6)
    assert found != pytest.approx(divergence(student, teacher), abs=1e-3)


def test_labelled_loss_is_the_cross_entropy_of_the_own_passage_among_the_others() -> None:
    scores = torch.tensor([[0.7, 0.1, 0.2], [0.3, 0.6, 0.5], [0.9, 0.2, 0.4]])
    found = labelled_cross_entropy(scores, torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), 0, 0.5)
    shares = [math.exp(scores[i, i] / 0.5) / sum(math.exp(one / 0.5) for one in scores[i]) for i in range(3)]
    assert found.item() == pytest.approx(-sum(map(math.log, shares)) / 3, abs=1e-6)


def test_labelled_loss_leaves_out_parallel_rows_and_what_says_the_same() -> None:
    # Query 0 is asked for by passage 3, which comes twice; the third row is parallel text, whose passage is its
    # query's English; the last passage is the English of query 0.
    scores = torch.tensor([[0.7, 0.1, 0.2, 0.6], [0.3, 0.6, 0.5, 0.4], [0.9, 0.2, 0.4, 0.3], [0.1, 0.2, 0.3, 0.4]])
    queries, passages = torch.tensor([0, 1, 2, 0]), torch.tensor([3, 3, 2, 0])
    found = labelled_cross_entropy(scores, queries, passages, 0, 1.0)
    first = -math.log(math.exp(0.7) / (math.exp(0.7) + math.exp(0.2)))
    second = -math.log(math.exp(0.6) / (math.exp(0.6) + math.exp(0.5) + math.exp(0.4)))
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_labelled_loss_of_parallel_text_alone_is_zero_and_has_a_gradient() -> None:
    scores = unit(2, 2).requires_grad_()
    loss = labelled_cross_entropy(scores, torch.tensor([4, 5]), torch.tensor([4, 5]), 0, 0.05)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None and not bool(scores.grad.any())


def test_labelled_loss_finds_the_own_passages_behind_those_of_another_process() -> None:
    everyones = torch.tensor([[0.2, 0.9, 0.3, 0.4], [0.5, 0.1, 0.6, 0.7]])
    found = labelled_cross_entropy(everyones, torch.tensor([0, 1]), torch.tensor([8, 9, 6, 7]), 2, 1.0)
    assert found.item() == pytest.approx(functional.cross_entropy(everyones, torch.tensor([2, 3])).item(), abs=1e-6)


def test_mean_direction_is_of_real_tokens_and_of_length_one() -> None:
    tokens, mask = unit(2, 3, 4, seed=6), mask_of(3, 2)
    found = mean_direction(tokens, mask)
    expected = [tokens[0].mean(0), tokens[1, :2].mean(0)]
    assert torch.allclose(found, torch.stack([one / one.norm() for one in expected]), atol=1e-6)


def test_maxsim_equals_loops_over_real_tokens() -> None:
    queries, passages = unit(3, 4, 6, seed=3), unit(2, 5, 6, seed=4)
    query_mask, passage_mask = mask_of(4, 1, 3), torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1]]).bool()
    expected = np.zeros((3, 2))
    for q in range(3):
        for p in range(2):
            best = [
                max(float(queries[q, i] @ passages[p, j]) for j in range(5) if passage_mask[p, j])
                for i in range(4)
                if query_mask[q, i]
            ]
            expected[q, p] = sum(best) / len(best)
    found = maxsim(queries, passages, query_mask, passage_mask, mean=True)
    assert np.allclose(found.numpy(), expected, atol=1e-6)
    sums = maxsim(queries, passages, query_mask, passage_mask, mean=False)
    assert np.allclose(sums.numpy(), expected * [[4], [1], [3]], atol=1e-6)


@pytest.fixture
def student(two_stream_student: Path) -> MultiVectorEncoder:
    model = load_model(two_stream_student, device="cpu")
    model.eval()
    return model


@pytest.fixture
def teacher() -> TeacherVectors:
    """A teacher of six texts: the English of the queries (0 to 2), then the passages."""
    lengths = [3, 2, 4, 3, 2, 5]
    vectors = unit(sum(lengths), CONTEXT_WIDTH, seed=5).numpy().astype(np.float16)
    return TeacherVectors(vectors, np.cumsum([0, *lengths]))


LABELS = torch.tensor([[0, 3], [1, 4], [2, 5]])


def features_of(model: MultiVectorEncoder) -> list[dict[str, Any]]:
    return [model.preprocess(QUERIES, task="query"), model.preprocess(PASSAGES, task="document")]


def test_loss_returns_the_weighted_terms(student: MultiVectorEncoder, teacher: TeacherVectors) -> None:
    weights = {"token_query": 0.5, "token_passage": 2.0, "relevance": 3.0, "context_relevance": 0.25}
    weights |= {"sentence": 1.5, "projection": 4.0, "sentence_query": 0.3, "sentence_passage": 0.4}
    objectives = ObjectiveWeights(**weights, context_sentence=0.6, labelled=0.8, temperature=0.1)
    with torch.no_grad():
        terms = DistillationLoss(student, teacher, objectives, sentence_weight=0.7)(features_of(student), LABELS)
        query, passage = (
            student(features, task=task)
            for features, task in zip(features_of(student), ("query", "document"), strict=True)
        )
    query_teacher = teacher.padded([0, 1, 2], torch.device("cpu"))
    passage_teacher = teacher.padded([3, 4, 5], torch.device("cpu"))
    masks = query["attention_mask"].bool(), passage["attention_mask"].bool()
    target = maxsim(query_teacher[0], passage_teacher[0], query_teacher[1], passage_teacher[1], mean=True)
    full = maxsim(query["token_embeddings"], passage["token_embeddings"], *masks, mean=True)
    sentences = query["sentence_embedding"] @ passage["sentence_embedding"].T
    features, vectors = (
        [side[key][mask] for side, mask in zip((query, passage), masks, strict=True)]
        for key in ("token_features", "token_embeddings")
    )
    weighted = query["context_embeddings"] * query["query_weights"].unsqueeze(-1)
    context = maxsim(weighted, passage["context_embeddings"], *masks, mean=True)
    means = [
        mean_direction(side["context_embeddings"], mask) for side, mask in zip((query, passage), masks, strict=True)
    ]
    taught = [mean_direction(*side) for side in (query_teacher, passage_teacher)]
    apart = [(ours - theirs).square().sum(1).mean() for ours, theirs in zip(means, taught, strict=True)]
    expected = {
        "sentence_query": 0.3 * apart[0],
        "sentence_passage": 0.4 * apart[1],
        "context_sentence": 0.6 * relevance_kd(means[0] @ means[1].T, taught[0] @ taught[1].T, 0.1),
        "token_query": 0.5 * token_kd(query["context_embeddings"], masks[0], *query_teacher),
        "token_passage": 2.0 * token_kd(passage["context_embeddings"], masks[1], *passage_teacher),
        "relevance": 3.0 * relevance_kd(full + 0.7 * sentences, target, 0.1),
        "context_relevance": 0.25 * relevance_kd(context, target, 0.1),
        "labelled": 0.8 * functional.cross_entropy((full + 0.7 * sentences) / 0.1, torch.arange(3)),
        "sentence": 1.5 * relevance_kd(sentences, target, 0.1),
        "projection": 4.0 * neighbour_kd(features[0], vectors[0], features[1], vectors[1], 0.1),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}, rel=1e-4
    )


def test_queries_learn_from_the_teachers_reading_of_queries(
    student: MultiVectorEncoder, teacher: TeacherVectors
) -> None:
    lengths = [2, 4, 3, 1, 1, 1]
    read_as_queries = TeacherVectors(
        unit(sum(lengths), CONTEXT_WIDTH, seed=6).numpy().astype(np.float16), np.cumsum([0, *lengths])
    )
    objectives = ObjectiveWeights(token_query=1.0, token_passage=1.0, relevance=1.0)

    def terms_of(taught: TeacherVectors, labels: torch.Tensor) -> dict[str, float]:
        with torch.no_grad():
            terms = DistillationLoss(student, taught, objectives)(features_of(student), labels)
        return {name: term.item() for name, term in terms.items()}

    apart = terms_of(TeacherVectors(teacher.vectors, teacher.offsets, read_as_queries), LABELS)
    # One teacher that has the queries' reading as texts 0 to 2 and the passages' as texts 3 to 5.
    vectors = np.concatenate([read_as_queries.vectors[:9], teacher.vectors[9:]])
    as_texts = TeacherVectors(vectors, np.cumsum([0, 2, 4, 3, 3, 2, 5]))
    assert apart == pytest.approx(terms_of(as_texts, LABELS))
    alike = terms_of(teacher, LABELS)
    assert apart["token_passage"] == pytest.approx(alike["token_passage"])
    assert apart["token_query"] != pytest.approx(alike["token_query"])
    assert apart["relevance"] != pytest.approx(alike["relevance"])


def test_objective_without_a_weight_is_not_computed(student: MultiVectorEncoder, teacher: TeacherVectors) -> None:
    loss = DistillationLoss(student, teacher, ObjectiveWeights(token_query=1.0, token_passage=0.0))
    assert list(loss(features_of(student), LABELS)) == ["token_query"]


@pytest.mark.parametrize(
    ("rates", "trained"),
    [
        (LearningRates(), ("0.context.bert.", "0.context.embedding.english", "0.bridge.", "0.sentence_head.", "1.")),
        (LearningRates(embedding=0, bridge=0, sentence=0, projection=0), ("0.context.bert.",)),
        (LearningRates(context=0), ("0.context.embedding.english", "0.bridge.", "0.sentence_head.", "1.")),
    ],
)
def test_gradient_reaches_only_what_is_left_to_train(
    rates: LearningRates, trained: tuple[str, ...], student: MultiVectorEncoder, teacher: TeacherVectors
) -> None:
    freeze(student, rates)
    reached = reached_by(ObjectiveWeights(relevance=1.0, context_relevance=1.0), student, teacher)
    assert all(name.startswith(trained) for name in reached)
    assert all(any(name.startswith(part) for name in reached) for part in trained)


@pytest.mark.parametrize(
    ("objective", "trained"),
    [
        ("token_query", ("0.context.", "0.bridge.")),
        ("token_passage", ("0.context.", "0.bridge.")),
        ("context_relevance", ("0.context.", "0.bridge.")),
        ("sentence", ("0.context.", "0.bridge.", "0.sentence_head.")),
        ("sentence_query", ("0.context.", "0.bridge.")),
        ("sentence_passage", ("0.context.", "0.bridge.")),
        ("context_sentence", ("0.context.", "0.bridge.")),
        ("projection", ("1.",)),
    ],
)
def test_objective_trains_its_part_alone(
    objective: str, trained: tuple[str, ...], student: MultiVectorEncoder, teacher: TeacherVectors
) -> None:
    freeze(student, LearningRates())
    alone = ObjectiveWeights(**{"token_query": 0.0, "token_passage": 0.0, objective: 1.0})
    reached = reached_by(alone, student, teacher)
    assert all(name.startswith(trained) for name in reached)
    assert all(any(name.startswith(part) for name in reached) for part in trained)


def reached_by(objectives: ObjectiveWeights, student: MultiVectorEncoder, teacher: TeacherVectors) -> set[str]:
    """Return the parameters that have a gradient after one batch."""
    terms = DistillationLoss(student, teacher, objectives, 1.0)(features_of(student), LABELS)
    torch.stack(list(terms.values())).sum().backward()
    return {name for name, one in student.named_parameters() if one.grad is not None and bool(one.grad.any())}


def test_projection_objective_trains_the_projection_alone(
    student: MultiVectorEncoder, teacher: TeacherVectors
) -> None:
    freeze(student, LearningRates())
    objectives = ObjectiveWeights(token_query=0, token_passage=0, projection=1.0)
    terms = DistillationLoss(student, teacher, objectives)(features_of(student), LABELS)
    terms["projection"].backward()
    reached = {name for name, one in student.named_parameters() if one.grad is not None and bool(one.grad.any())}
    assert reached == {"1.linear.weight"}


def test_sentence_objective_equals_the_divergence_of_the_dot_products(
    student: MultiVectorEncoder, teacher: TeacherVectors
) -> None:
    objectives = ObjectiveWeights(token_query=0, token_passage=0, sentence=2.0, temperature=0.1)
    terms = DistillationLoss(student, teacher, objectives)(features_of(student), LABELS)
    sides = [
        student(dict(one), task=task) for one, task in zip(features_of(student), ("query", "document"), strict=True)
    ]
    dots = sides[0]["sentence_embedding"] @ sides[1]["sentence_embedding"].T
    both = [teacher.padded(LABELS[:, side].tolist(), torch.device("cpu")) for side in (0, 1)]
    target = maxsim(both[0][0], both[1][0], both[0][1], both[1][1], mean=True)
    assert terms["sentence"].item() == pytest.approx(2 * relevance_kd(dots, target, 0.1).item(), rel=1e-4)


def test_token_kd_between_different_widths_is_refused(student: MultiVectorEncoder) -> None:
    narrow = TeacherVectors(np.ones((6, 8), np.float16), np.arange(7))
    with pytest.raises(ModelError, match="32 dimensions, the teacher's 8"):
        DistillationLoss(student, narrow, ObjectiveWeights())(features_of(student), LABELS)


@pytest.mark.parametrize(
    ("objective", "missing"),
    [
        ("context_relevance", "context_embeddings"),
        ("sentence", "sentence_embedding"),
        ("projection", "token_features"),
    ],
)
def test_objective_that_the_student_cannot_have_is_refused(
    objective: str, missing: str, plain_student: Path, teacher: TeacherVectors
) -> None:
    model = load_model(plain_student, device="cpu")
    objectives = ObjectiveWeights(**{"token_query": 0.0, "token_passage": 0.0, objective: 1.0})
    with pytest.raises(ModelError, match=f"gives no {missing}; give the objectives that need it the weight 0"):
        DistillationLoss(model, teacher, objectives)(features_of(model), LABELS)
