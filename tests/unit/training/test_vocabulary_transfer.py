"""Multilingual pieces in terms of English ones, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers

from training.losses.projection import neighbour_kd
from training.transfer.base import place_in_space
from training.transfer.projection import fit_projection, principal_components
from training.transfer.vocabulary import Piece, read_marked, read_wordpiece, transfer

ENGLISH = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "music", "##ing", "play", "!", "##s", "s", "##", "[x"]
WIDTH = 12


def vectors(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)


def nearest_by_cosine(vector: np.ndarray, others: np.ndarray, count: int) -> list[int]:
    cosines = [float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)) for other in others]
    return sorted(range(len(others)), key=lambda index: -cosines[index])[:count]


def test_wordpiece_entries_are_read_by_what_they_stand_for() -> None:
    pieces = dict(zip(ENGLISH, read_wordpiece(ENGLISH), strict=True))
    assert pieces["[CLS]"] == Piece("", False)
    assert pieces["music"] == Piece("music", True)
    assert pieces["##ing"] == Piece("ing", False)
    assert pieces["!"] == Piece("!", True)
    assert pieces["[x"] == Piece("[x", True)


def test_marked_entries_are_read_by_what_they_stand_for() -> None:
    assert read_marked(["<s>", "▁music", "ing", "▁", "<"]) == [
        Piece("", False),
        Piece("music", True),
        Piece("ing", False),
        Piece("", True),
        Piece("<", False),
    ]
    assert read_marked(["Ġmusic", "<unk>"], "Ġ") == [Piece("music", True), Piece("", False)]


def test_piece_becomes_the_weighted_mean_of_the_nearest_by_cosine() -> None:
    ours, english = vectors(50, 1) * 7, vectors(40, 2)
    english *= np.random.default_rng(3).uniform(0.1, 10, (40, 1)).astype(np.float32)
    found = transfer(
        [Piece(f"ours{i}", True) for i in range(50)],
        ours,
        [Piece(f"english{i}", True) for i in range(40)],
        english,
        special={},
        neighbours=5,
        temperature=0.1,
    )
    assert found.rows.shape == found.weights.shape == (50, 5)
    assert found.copied == 0
    assert np.allclose(found.weights.sum(1), 1, atol=1e-6)
    for piece in range(50):
        expected = nearest_by_cosine(ours[piece], english, 5)
        assert sorted(found.rows[piece].tolist()) == sorted(expected)
        cosines = english[found.rows[piece]] @ ours[piece]
        cosines /= np.linalg.norm(english[found.rows[piece]], axis=1) * np.linalg.norm(ours[piece])
        shares = np.exp(cosines / 0.1)
        assert np.allclose(found.weights[piece], shares / shares.sum(), atol=1e-5)


def test_shared_pieces_are_copied_and_special_ids_mapped() -> None:
    names = ["<s>", "▁music", "music", "ing", "▁Music", "▁playing", "!", "▁!", "s", "▁s", "▁"]
    pieces = read_marked(names)
    found = transfer(
        pieces, vectors(len(names), 4), read_wordpiece(ENGLISH), vectors(len(ENGLISH), 5), special={0: 2}
    )
    copied = {name: ENGLISH[found.rows[i, 0]] for i, name in enumerate(names) if found.weights[i, 0] == 1}
    assert copied == {
        "<s>": "[CLS]",
        "▁music": "music",
        "ing": "##ing",
        "▁Music": "music",
        "!": "!",
        "▁!": "!",
        "s": "##s",
        "▁s": "s",
    }
    assert found.copied == len(copied)
    # `music` inside a word and `playing` are no entries: both are made of several.
    assert found.weights[names.index("music"), 0] < 1
    assert np.allclose(found.weights.sum(1), 1, atol=1e-6)


def test_english_piece_without_a_place_is_no_candidate() -> None:
    english = vectors(12, 6)
    english[[0, 3, 7]] = 0
    found = transfer(
        [Piece(f"ours{i}", True) for i in range(30)],
        vectors(30, 7),
        [Piece(f"english{i}", True) for i in range(12)],
        english,
        special={},
        neighbours=9,
    )
    assert not set(found.rows.ravel().tolist()) & {0, 3, 7}


def test_fewer_candidates_than_neighbours_leave_weights_of_zero() -> None:
    found = transfer(
        [Piece("a", True)], vectors(1, 8), [Piece("b", True), Piece("c", True)], vectors(2, 9), special={}
    )
    assert found.weights.shape == (1, 8)
    assert found.weights[0, :2].sum() == pytest.approx(1)
    assert not found.weights[0, 2:].any()


def spelling_tokenizer() -> Tokenizer:
    """A tokenizer of a few pieces, in lower case, `▁` before a word."""
    entries = ["<unk>", "▁music", "▁play", "ing", "▁", "s"]
    tokenizer = Tokenizer(models.Unigram([(entry, -float(i)) for i, entry in enumerate(entries)], unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return tokenizer


def test_english_piece_lies_at_the_mean_of_the_pieces_that_spell_it() -> None:
    space = vectors(6, 10)
    placed = place_in_space(
        [Piece("", False), Piece("music", True), Piece("Playing", True), Piece("ing", False), Piece("ings", False)],
        spelling_tokenizer(),
        space,
    )
    assert not placed[0].any()
    assert np.allclose(placed[1], space[1])
    assert np.allclose(placed[2], (space[2] + space[3]) / 2)
    assert np.allclose(placed[3], space[3])
    assert np.allclose(placed[4], (space[3] + space[5]) / 2)


def test_principal_components_are_orthonormal_and_hold_the_most() -> None:
    random = torch.Generator().manual_seed(0)
    spread = torch.tensor([5.0, 0.1, 3.0, 0.2, 1.0, 0.1])
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=random)).Q
    features = torch.randn(400, 6, generator=random) * spread @ rotation
    found = principal_components(features, 3)
    assert found.shape == (3, 6)
    assert torch.allclose(found @ found.T, torch.eye(3), atol=1e-5)
    held = (features @ found.T).square().sum(0)
    best = torch.linalg.svdvals(features)[:3].square()
    assert torch.allclose(held, best, rtol=1e-4)


def test_fitted_projection_keeps_neighbours_better_than_principal_components() -> None:
    chance = torch.Generator().manual_seed(0)
    # Words in directions of unequal strength: neighbours are told apart by faint directions too.
    centres = torch.randn(60, 24, generator=chance) * torch.linspace(1.5, 0.5, 24)
    words = centres[torch.randint(60, (3000,), generator=chance)]
    features = words + 0.1 * torch.randn(3000, 24, generator=chance)
    queries, passages = features[:1500], features[1500:]
    losses = [
        neighbour_kd(queries, queries @ weight.T, passages, passages @ weight.T, 0.05).item()
        for weight in (
            principal_components(features, 8),
            fit_projection(queries, passages, 8, steps=150),
        )
    ]
    assert losses[1] < 0.9 * losses[0]
