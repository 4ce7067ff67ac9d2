"""The bridge is the least-squares map from n-gram features to the embeddings of shared pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from drdecr.encoder.torch_runtime import load_model
from drdecr.encoder.two_stream import TwoStreamEncoder
from training.transfer.bridge import fit_bridge

TEXTS = ("which package plays music", "the sound player", "music, the sound", "which player plays the package?") * 3


@pytest.fixture
def encoder(two_stream_student: Path) -> TwoStreamEncoder:
    encoder = load_model(two_stream_student, device="cpu")[0]
    assert isinstance(encoder, TwoStreamEncoder)
    encoder.eval()
    embedding = encoder.context.embedding
    with torch.no_grad():
        encoder.bridge.weight.zero_()
        # Every second piece is shared: one English row, whole.
        embedding.weights[::2] = torch.tensor([1.0, 0.0, 0.0])
        embedding.weights[1::2] = torch.tensor([0.5, 0.3, 0.2])
    return encoder


@torch.no_grad()
def taught(encoder: TwoStreamEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Collect the features and the embeddings of all shared pieces, text by text."""
    features, wanted = [], []
    for text in TEXTS:
        ids = encoder.preprocess([text])["input_ids"]
        shared = ids[0] % 2 == 0
        features.append(encoder.ngram(ids, torch.ones_like(ids))[0][0][shared].numpy())
        wanted.append(encoder.context.embedding(ids)[0][shared].numpy())
    return np.concatenate(features), np.concatenate(wanted)


def test_bridge_is_the_least_squares_map(encoder: TwoStreamEncoder) -> None:
    features, wanted = taught(encoder)
    # The ridge of 1 as rows of their own.
    width = features.shape[1]
    found = np.linalg.lstsq(
        np.vstack([features, np.eye(width)]), np.vstack([wanted, np.zeros((width, wanted.shape[1]))]), rcond=None
    )[0]
    fit_bridge(encoder, TEXTS, share=1.0)
    assert np.allclose(encoder.bridge.weight.detach().numpy().T, found, atol=1e-4)


def test_what_pieces_of_other_languages_hold_changes_no_fit(encoder: TwoStreamEncoder) -> None:
    fit_bridge(encoder, TEXTS, share=0.5)
    first = encoder.bridge.weight.detach().clone()
    with torch.no_grad():
        encoder.context.embedding.weights[::2] = torch.tensor([1.0, 0.0, 0.0])
        encoder.context.embedding.weights[1::2] = torch.tensor([0.1, 0.1, 0.8])
    fit_bridge(encoder, TEXTS, share=0.5)
    assert torch.equal(encoder.bridge.weight, first)


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_share_divides_every_embedding_between_transfer_and_bridge(encoder: TwoStreamEncoder, share: float) -> None:
    before = encoder.context.embedding.weights.detach().clone()
    whole = fit_bridge(encoder, TEXTS, share=share)
    assert torch.allclose(encoder.context.embedding.weights, (1 - share) * before)
    assert bool(encoder.bridge.weight.any()) == (share > 0)
    assert 0 < whole <= 1


def test_contextual_stream_reads_the_bridge(encoder: TwoStreamEncoder) -> None:
    ids = encoder.preprocess([TEXTS[0]])
    with torch.no_grad():
        without = encoder(dict(ids))["context_embeddings"]
        fit_bridge(encoder, TEXTS)
        features = encoder(dict(ids))
    assert not torch.allclose(features["context_embeddings"], without)
    half = features["token_features"][..., : without.shape[-1]]
    assert torch.equal(half, features["context_embeddings"])
