"""A plain encoder becomes a student that reads and scores in training what it will when it serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated_encoder import make_encoder
from safetensors.torch import load_file

from drdecr.encoder.settings import read_settings
from drdecr.encoder.torch_runtime import TorchEncoder, load_model
from drdecr.errors import FetchError, ModelError
from training.candidates.collator import TextInputs
from training.fresh import is_plain_encoder, make_student
from training.models import download


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoders") / "xlmr")


@pytest.fixture(scope="module")
def student(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_student(encoder, tmp_path_factory.mktemp("students") / "fresh", dim=12, seed=3)


def test_plain_encoder_is_told_from_a_student(encoder: Path, student: Path, tmp_path: Path) -> None:
    assert is_plain_encoder(encoder)
    assert not is_plain_encoder(student)
    (tmp_path / "config.json").write_text('{"architectures": ["HF_ColBERT"]}')
    assert not is_plain_encoder(tmp_path)


def test_markers_are_new_pieces_and_nothing_around_the_text_is_scored(encoder: Path, student: Path) -> None:
    model = load_model(student, device="cpu")
    pieces = len(load_file(encoder / "model.safetensors")["embeddings.word_embeddings.weight"])
    assert load_file(student / "model.safetensors")["embeddings.word_embeddings.weight"].shape[0] == pieces + 2
    inputs = TextInputs(model, 32, 48)
    alone = model.tokenizer("music player")["input_ids"]
    for kind, marker in (("query", pieces), ("passage", pieces + 1)):
        features = inputs(["music player", "x"], kind)  # type: ignore[arg-type]
        assert features["input_ids"][0].tolist() == [alone[0], marker, *alone[1:]]
        scored = model(dict(features), task="query" if kind == "query" else "document")["attention_mask"]
        assert scored[0].tolist() == [False, False, *[True] * (len(alone) - 2), False]
        assert int(scored[1].sum()) < int(scored[0].sum())


def test_training_and_serving_give_the_same_vectors(student: Path) -> None:
    model = load_model(student, device="cpu")
    model.eval()
    texts = ["where is the music player", "проигрыватель музыки"]
    served = TorchEncoder.load(student, device="cpu")
    assert read_settings(student) == served.settings
    for kind, task in (("query", "query"), ("passage", "document")):
        with torch.no_grad():
            features = model(TextInputs(model, 32, 180)(texts, kind), task=task)  # type: ignore[arg-type]
        encoded = served.encode(texts, kind)  # type: ignore[arg-type]
        for at in range(2):
            trained = features["token_embeddings"][at][features["attention_mask"][at].bool()]
            np.testing.assert_allclose(encoded.tokens_of(at), trained.numpy(), atol=1e-5)


def test_same_seed_gives_the_same_student(encoder: Path, student: Path, tmp_path: Path) -> None:
    same, other = (make_student(encoder, tmp_path / str(seed), dim=12, seed=seed) for seed in (3, 4))
    for part in ("model.safetensors", "1_Dense/model.safetensors"):
        assert (same / part).read_bytes() == (student / part).read_bytes()
        assert (other / part).read_bytes() != (student / part).read_bytes()


def test_directory_that_is_no_encoder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read as an encoder"):
        make_student(tmp_path, tmp_path / "out", dim=8, seed=0)


def test_model_that_the_hub_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="owner/name: no directory here, and it cannot be had from the hub"):
        download("owner/name", tmp_path / "model")
