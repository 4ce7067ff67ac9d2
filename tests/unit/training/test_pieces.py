"""Vectors that the pieces of an embedded student have of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated_data_set import make_data_set
from fabricated_torch_student import make_plain_student, make_two_stream_student
from test_compact_student import JUDGED, TEXTS

from drdecr.encoder.load import load_encoder
from drdecr.encoder.torch_runtime import TorchEncoder, load_model
from drdecr.errors import UsageError
from training import onnx_quality
from training.compact.export import export_compact
from training.compact.weights import unpack
from training.models import Models
from training.recipe import LearningRates, ObjectiveWeights, Recipe, Stage
from training.rows import read_parallel
from training.stage import run_stage
from training.stage_rows import StageInputs
from training.transfer.pieces import grow_student, lacks_pieces

WIDTH = 6
STAGE = Stage(
    name="words",
    steps=12,
    batch_size=4,
    objectives=ObjectiveWeights(token_query=1, relevance=1),
    learning_rates=LearningRates(context=0, embedding=0, bridge=0, sentence=0, projection=0, pieces=0.02),
)


@pytest.fixture(scope="module")
def grown(two_stream_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grow_student(two_stream_student, tmp_path_factory.mktemp("grown") / "student", WIDTH)


@pytest.fixture(scope="module")
def trained(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pieces")
    teacher = TorchEncoder.load(make_two_stream_student(root / "teacher", dim=32), device="cpu", threads=1)
    rows = read_parallel([make_data_set(root / "data", ("de", "ru"))], ["de", "ru"], 1000)
    return run_stage(STAGE, StageInputs(grown, teacher, rows, {}, seed=3), root / "1-words")


def test_grown_student_gives_the_same_vectors(grown: Path, two_stream_student: Path) -> None:
    ours, theirs = (load_encoder(one).encode(TEXTS, "query") for one in (grown, two_stream_student))
    assert np.allclose(ours.vectors, theirs.vectors, atol=1e-6)
    assert ours.sentences is not None and theirs.sentences is not None
    assert np.allclose(ours.sentences, theirs.sentences, atol=1e-6)


def test_training_reaches_only_the_pieces_that_it_saw(trained: Path, grown: Path) -> None:
    before, after = (load_model(one, device="cpu").state_dict() for one in (grown, trained))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"0.context.embedding.own", "0.context.embedding.own_map.weight"}
    seen = after["0.context.embedding.own"].abs().sum(1) > 0
    assert 10 < int(seen.sum()) < len(seen) / 2


def test_compact_form_keeps_them(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A student of random weights ranks by chance: the gate has its own test.
    monkeypatch.setattr(onnx_quality, "LARGEST_NDCG_LOSS", 1.0)
    export_compact(trained, tmp_path / "compact", JUDGED, threads=1)
    back = unpack(tmp_path / "compact", tmp_path / "back")
    before, after = (load_model(one, device="cpu").state_dict()["0.context.embedding.own"] for one in (trained, back))
    assert float((before - after).abs().max()) < 0.25 * float(before.abs().max())
    served, reference = (
        load_encoder(one, threads=1).encode(TEXTS, "passage") for one in (tmp_path / "compact", trained)
    )
    assert float((served.vectors * reference.vectors).sum(axis=1).mean()) > 0.97


def test_recipe_gives_them_to_a_student_that_has_none(two_stream_student: Path, grown: Path, tmp_path: Path) -> None:
    recipe = Recipe(name="r", parallel=[tmp_path], stages=[STAGE], piece_width=WIDTH)
    models = Models(recipe, tmp_path / "models", {}, say=lambda line: None)
    made = models.student(str(two_stream_student))
    assert made != two_stream_student and load_model(made, device="cpu")[0].own_width == WIDTH
    assert models.student(str(made)) == made
    plain = make_plain_student(tmp_path / "plain")
    assert not lacks_pieces(plain, WIDTH) and not lacks_pieces(two_stream_student, 0)
    with pytest.raises(UsageError, match="have 6 dimensions of their own, not 5"):
        lacks_pieces(grown, 5)
