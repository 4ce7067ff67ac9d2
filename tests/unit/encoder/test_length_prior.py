"""What a passage's length takes from its score, by way of its sentence vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from drdecr.encoder.length_prior import LengthPrior
from drdecr.encoder.settings import StudentSettings
from drdecr.encoder.torch_runtime import TorchEncoder

PRIOR = LengthPrior(penalty=0.05, offset=32)
WEIGHT = 0.4


def sentence(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("tokens", [0, 1, 128, 512, 10**6])
def test_sentence_vectors_of_passages_keep_their_length_of_one(tokens: int) -> None:
    vector = PRIOR.of_passage(sentence(1), tokens, WEIGHT)
    assert vector.shape == (16,) and vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_dot_product_adds_the_penalty_over_the_weight() -> None:
    query, passage = sentence(1), sentence(2)
    alike = float(query[:-1] @ passage[:-1] / np.linalg.norm(query[:-1]) / np.linalg.norm(passage[:-1]))
    for tokens in (10, 128, 500):
        worth = -0.05 / WEIGHT * np.log((tokens + 32) / (128 + 32))
        score = PRIOR.of_query(query) @ PRIOR.of_passage(passage, tokens, WEIGHT)
        assert score == pytest.approx(alike * np.sqrt(1 - worth**2) + worth, abs=1e-5)


def test_longer_passage_is_worth_less() -> None:
    query = PRIOR.of_query(sentence(1))
    scores = [float(query @ PRIOR.of_passage(sentence(1), tokens, WEIGHT)) for tokens in (8, 64, 128, 256, 512)]
    assert scores == sorted(scores, reverse=True)


def test_sentence_vector_of_zeros_stays_finite() -> None:
    zeros = np.zeros(16, np.float32)
    assert np.isfinite(PRIOR.of_query(zeros)).all() and np.isfinite(PRIOR.of_passage(zeros, 3, WEIGHT)).all()


def test_prior_without_sentence_vectors_is_refused() -> None:
    with pytest.raises(ValidationError, match="length_prior: lies in the sentence vectors"):
        StudentSettings(name="a", dim=4, pad_id=0, length_prior=PRIOR)


def test_encoder_tells_passages_from_queries(two_stream_student: Path) -> None:
    encoder = TorchEncoder.load(two_stream_student, device="cpu")
    settings = encoder.settings.model_copy(update={"length_prior": PRIOR})
    weighed = TorchEncoder(encoder.model, settings, "0" * 64)
    texts = ["which package plays music ?", "music " * 60]
    query, passage = (weighed.encode(texts, kind).sentences for kind in ("query", "passage"))
    assert query is not None and passage is not None
    assert query[:, -1].tolist() == [1, 1]
    assert passage[0, -1] > passage[1, -1]
    raw = encoder.encode(texts, "query").sentences
    assert raw is not None
    expected = raw[:, :-1] / np.linalg.norm(raw[:, :-1], axis=1, keepdims=True)
    assert np.allclose(query[:, :-1], expected, atol=1e-5)
