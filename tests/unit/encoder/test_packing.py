"""In training the embedded student computes on real tokens alone, and gives what it gives on the padded batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drdecr.encoder.packing import Packing, attends_packed
from drdecr.encoder.torch_runtime import load_model
from drdecr.encoder.two_stream import TwoStreamEncoder

TEXTS = ("the sound player", "a", "which package plays music, the sound or the player?", "", "music music")
GIVEN = ("context_embeddings", "token_features", "sentence_embedding")


@pytest.fixture
def encoder(two_stream_student: Path) -> TwoStreamEncoder:
    encoder = load_model(two_stream_student, device="cpu")[0]
    assert isinstance(encoder, TwoStreamEncoder)
    nn.init.normal_(encoder.bridge.weight, std=0.1)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def encode(encoder: TwoStreamEncoder, texts: tuple[str, ...], *, training: bool) -> dict[str, Tensor]:
    encoder.train(training)
    features: dict[str, Tensor] = encoder(encoder.preprocess(texts))
    return features


def test_training_gives_what_serving_gives_and_zeros_for_padding(encoder: TwoStreamEncoder) -> None:
    packed, padded = (encode(encoder, TEXTS, training=training) for training in (True, False))
    real = encoder.preprocess(TEXTS)["attention_mask"].bool()
    assert real.any() and not real.all()
    assert torch.equal(packed["attention_mask"], padded["attention_mask"])
    for name in GIVEN:
        one, other = packed[name], padded[name]
        if one.ndim == 3:
            assert not one[~real].any()
            one, other = one[real], other[real]
        assert torch.allclose(one, other, atol=1e-5), name


def test_gradients_are_those_of_the_padded_batch(encoder: TwoStreamEncoder) -> None:
    encoder.requires_grad_(True)
    real = encoder.preprocess(TEXTS)["attention_mask"].unsqueeze(-1)
    found: list[dict[str, Tensor]] = []
    for training in (True, False):
        encoder.zero_grad()
        features = encode(encoder, TEXTS, training=training)
        chance = torch.Generator().manual_seed(0)
        loss = torch.zeros(())
        for name in GIVEN:
            wanted = torch.randn(features[name].shape, generator=chance)
            loss = loss + (features[name] * wanted * (real if wanted.ndim == 3 else 1)).sum()
        loss.backward()
        found.append({name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None})
    packed, padded = found
    assert packed.keys() == padded.keys() and "bridge.weight" in packed
    for name, gradient in packed.items():
        assert torch.allclose(gradient, padded[name], rtol=1e-3, atol=1e-4), name


def test_rows_that_stand_for_no_token_change_nothing(
    encoder: TwoStreamEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.requires_grad_(True)
    found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for multiple in (1, 64):
        monkeypatch.setattr("drdecr.encoder.packing._FILLED_TO", multiple)
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            features = encode(encoder, TEXTS, training=True)
        chance = torch.Generator().manual_seed(0)
        loss = torch.zeros(())
        for name in GIVEN:
            loss = loss + (features[name] * torch.randn(features[name].shape, generator=chance)).sum()
        loss.backward()
        grads = {name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None}
        found.append(({name: features[name].detach() for name in GIVEN}, grads))
    for exact, filled in zip(*found, strict=True):
        assert exact.keys() == filled.keys()
        for name, each in exact.items():
            # Products of other sizes are summed in another order, in 16 bits.
            assert (filled[name] - each).norm() <= 0.02 * each.norm() + 1e-6, name


def test_a_text_is_not_read_with_its_neighbours(encoder: TwoStreamEncoder) -> None:
    together = encode(encoder, TEXTS, training=True)
    for at, text in enumerate(TEXTS):
        alone = encode(encoder, (text,), training=True)
        tokens = alone["token_features"].shape[1]
        assert torch.allclose(alone["token_features"][0], together["token_features"][at, :tokens], atol=1e-5)
        assert torch.allclose(alone["sentence_embedding"][0], together["sentence_embedding"][at], atol=1e-5)


@pytest.mark.parametrize("filled", [False, True])
def test_windows_end_with_the_text(*, filled: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=filled):
        packing = Packing.of(torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]]))
    assert packing.filler == (58 if filled else 0)
    tokens = torch.arange(1.0, 7.0 + packing.filler).unsqueeze(1)
    assert packing.positions.tolist() == [0, 1, 0, 1, 2, 0] + [0] * packing.filler
    windows = packing.windows(tokens, 3, 1)
    assert not windows[6:].any()
    assert windows[:6].tolist() == [
        [0, 1, 2],
        [1, 2, 0],
        [0, 3, 4],
        [3, 4, 5],
        [4, 5, 0],
        [0, 6, 0],
    ]
    assert packing.pad(tokens).squeeze(2).tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    again = packing.pack(packing.pad(tokens))
    assert torch.equal(again[:6], tokens[:6]) and len(again) == len(tokens) and not again[6:].any()


def test_a_model_whose_attention_was_changed_says_so(encoder: TwoStreamEncoder) -> None:
    assert attends_packed(encoder.context.bert)
    encoder.context.bert.set_attn_implementation("eager")
    assert not attends_packed(encoder.context.bert)
    with pytest.raises(RuntimeError, match="attend_packed"):
        encode(encoder, TEXTS, training=True)
