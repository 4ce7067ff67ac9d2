"""Sentence vectors without token vectors are those that `encode` gives, by torch and by a graph."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from torch import nn

from drdecr.encoder.onnx_runtime import INPUTS, ROWS_INPUT, OnnxEncoder
from drdecr.encoder.settings import ONNX_FOLDER, SETTINGS_FILE
from drdecr.encoder.torch_runtime import TorchEncoder, reads_sentences_alone
from drdecr.encoder.types import Encoder
from drdecr.encoder.windows import encode_windows
from training.export import export_onnx

TEXTS = ("the sound player", "a", "which package plays music, the sound or the player?", "", "music music")


@pytest.fixture(scope="module")
def students(two_stream_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported students, by name: one whose sentence head changes nothing, one whose head reads the tokens."""
    folder = tmp_path_factory.mktemp("alone")
    encoder = TorchEncoder.load(two_stream_student, threads=1)
    nn.init.normal_(encoder.model[0].bridge.weight, std=0.1)
    for name in ("trained", "idle"):
        if name == "idle":
            for weight in encoder.model[0].sentence_head.parameters():
                nn.init.zeros_(weight)
        encoder.model.save(str(folder / name))
        shutil.copyfile(two_stream_student / SETTINGS_FILE, folder / name / SETTINGS_FILE)
        export_onnx(folder / name, int8=False, threads=1)
    return folder


@pytest.fixture(params=["idle", "trained"])
def student(request: pytest.FixtureRequest, students: Path) -> Path:
    return students / str(request.param)


@pytest.fixture(params=[TorchEncoder, OnnxEncoder])
def encoder(request: pytest.FixtureRequest, student: Path) -> Encoder:
    loaded: Encoder = request.param.load(student, threads=1)
    return loaded


def test_sentence_vectors_are_those_of_the_whole_encoding(encoder: Encoder) -> None:
    whole = encoder.encode(TEXTS, "passage").sentences
    alone = encoder.encode_sentences(TEXTS)
    assert whole is not None and alone.shape == whole.shape
    assert not alone[TEXTS.index("")].any()
    # The last dimension may be the length prior's.
    for one, other in zip(alone[:, :-1], whole[:, :-1], strict=True):
        assert np.allclose(one * np.linalg.norm(other), other * np.linalg.norm(one), atol=1e-5)


def test_graph_takes_rows_only_where_its_sentence_vectors_need_no_tokens(student: Path) -> None:
    session = onnxruntime.InferenceSession(str(student / ONNX_FOLDER / "model.onnx"))
    inputs = {*INPUTS, ROWS_INPUT} if student.name == "idle" else {*INPUTS}
    assert {entry.name for entry in session.get_inputs()} == inputs
    assert reads_sentences_alone(TorchEncoder.load(student, threads=1).model) is (student.name == "idle")


def test_a_model_in_training_goes_on_training(student: Path) -> None:
    encoder = TorchEncoder.load(student, threads=1)
    encoder.model.train()
    encoder.encode_sentences(TEXTS)
    assert encoder.model.training and encoder.model[0].training


def test_no_text_at_all(encoder: Encoder) -> None:
    assert encoder.encode_sentences([]).shape == (0, encoder.spec.sentence_dim)
    assert len(encode_windows(encoder, [])) == 0
