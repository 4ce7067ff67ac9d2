"""Serving a student by ONNX Runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drdecr.encoder import onnx_runtime
from drdecr.encoder.batching import batches, concatenate
from drdecr.encoder.load import load_encoder
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.errors import ModelError

TEXTS = ["hello world", "привет", "", "東京 tower", "a", "longer text " * 30, "สวัสดี", "   ", "hello world"]


@pytest.fixture(scope="module")
def encoder(tiny_student: Path) -> OnnxEncoder:
    return OnnxEncoder.load(tiny_student, threads=1)


@pytest.fixture
def copy(tiny_student: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_student, tmp_path / "copy"))


def change_manifest(student: Path, **changes: object) -> None:
    path = student / "onnx" / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_spec_is_what_the_manifest_says(tiny_student: Path, encoder: OnnxEncoder) -> None:
    manifest = json.loads((tiny_student / "onnx" / "encoder.json").read_text())
    assert (encoder.spec.dim, encoder.spec.sentence_dim) == (16, 8)
    assert encoder.spec.fingerprint == manifest["fingerprint"]
    assert encoder.spec.name == "tiny"


def test_vectors_and_sentences_have_length_one(encoder: OnnxEncoder) -> None:
    encoded = encoder.encode(TEXTS, "passage")
    assert encoded.sentences is not None
    assert np.allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(encoded.sentences, axis=1), [1, 1, 0, 1, 1, 1, 1, 0, 1], atol=1e-5)


def test_empty_texts_have_no_tokens_and_a_sentence_of_zeros(encoder: OnnxEncoder) -> None:
    encoded = encoder.encode(["", " \n"], "query")
    assert encoded.sentences is not None
    assert (encoded.vectors.shape, encoded.offsets.tolist()) == ((0, 16), [0, 0, 0])
    assert not encoded.sentences.any()


def test_no_texts_give_empty_arrays(encoder: OnnxEncoder) -> None:
    encoded = encoder.encode([], "query")
    assert (len(encoded), encoded.vectors.shape, encoded.spans.shape) == (0, (0, 16), (0, 2))


def test_vectors_do_not_depend_on_the_batch(encoder: OnnxEncoder) -> None:
    together = encoder.encode(TEXTS, "passage")
    alone = concatenate([encoder.encode([text], "passage") for text in TEXTS])
    assert together.sentences is not None and alone.sentences is not None
    assert together.offsets.tolist() == alone.offsets.tolist()
    assert np.allclose(together.vectors, alone.vectors, atol=1e-5)
    assert np.allclose(together.sentences, alone.sentences, atol=1e-5)
    assert np.array_equal(together.spans, alone.spans)


def test_equal_texts_get_equal_vectors_in_their_own_places(encoder: OnnxEncoder) -> None:
    encoded = encoder.encode(TEXTS, "query")
    assert np.allclose(encoded.tokens_of(0), encoded.tokens_of(8), atol=1e-6)
    assert len(encoded.tokens_of(2)) == 0


def test_long_text_is_flagged_and_cut_to_the_limit_of_its_kind(encoder: OnnxEncoder) -> None:
    query, passage = encoder.encode(["x1 " * 100], "query"), encoder.encode(["x1 " * 100], "passage")
    assert query.truncated.tolist() == passage.truncated.tolist() == [True]
    assert (len(query.vectors), len(passage.vectors)) == (30, 126)


def test_student_without_sentence_vectors_gives_none(another_student: Path) -> None:
    encoded = load_encoder(another_student, threads=1).encode(["hello"], "query")
    assert encoded.sentences is None
    assert encoded.vectors.shape[1] == 24


def test_progress_adds_up_to_all_texts(encoder: OnnxEncoder) -> None:
    seen: list[int] = []
    encoder.encode(TEXTS * 40, "passage", progress=seen.append)
    assert sum(seen) == len(TEXTS) * 40
    assert len(seen) > 1


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_any_unicode_is_encoded(encoder: OnnxEncoder, text: str) -> None:
    encoded = encoder.encode([text], "query")
    assert np.isfinite(encoded.vectors).all()
    assert len(encoded.vectors) == len(encoded.spans) <= 30


@given(st.lists(st.integers(0, 50)), st.integers(1, 120))
def test_batches_hold_every_filled_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    grouped = list(batches(lengths, budget))
    placed = sorted(position for batch in grouped for position in batch)
    assert placed == [position for position, length in enumerate(lengths) if length]
    for batch in grouped:
        assert len(batch) == 1 or max(lengths[position] for position in batch) * len(batch) <= budget


def test_changed_file_is_refused(copy: Path) -> None:
    graph = copy / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ModelError, match=r"model\.onnx: its SHA-256 differs"):
        load_encoder(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / "onnx" / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: cannot be read"):
        load_encoder(copy)


def test_graph_of_another_width_than_promised_is_refused(copy: Path) -> None:
    change_manifest(copy, dim=32)
    with pytest.raises(ModelError, match="promises"):
        load_encoder(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format"),
        ({"dim": 0}, "dim"),
        ({"serves": "int8"}, "int8"),
        ({"sha256": {}}, "lacks"),
        ({"unheard": 1}, "unheard"),
        ({"query_length": 5, "query_prefix": [7, 8, 9]}, "no room"),
        (
            {"files": {"fp32": "../model.onnx"}, "sha256": {"../model.onnx": "0" * 64, "tokenizer.json": "0" * 64}},
            "plain",
        ),
    ],
)
def test_manifest_that_makes_no_sense_is_refused(changes: dict[str, object], message: str, copy: Path) -> None:
    change_manifest(copy, **changes)
    with pytest.raises(ModelError, match=rf"encoder\.json.*{message}"):
        load_encoder(copy)


def test_manifest_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "onnx" / "encoder.json").write_text("{")
    with pytest.raises(ModelError, match=r"encoder\.json"):
        load_encoder(copy)


def test_serving_imports_no_torch(tiny_student: Path) -> None:
    program = (
        "import sys; from drdecr.encoder.load import load_encoder;"
        f"load_encoder({str(tiny_student)!r}, threads=1).encode(['hello'], 'query');"
        "print({'torch', 'transformers', 'sentence_transformers', 'onnx'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_room_of_large_batches_is_given_back_by_a_small_one_after_a_pause(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = OnnxEncoder.load(tiny_student, threads=1)
    session = encoder._session
    gave_back = []

    class Watched:
        def run(self, outputs: list[str], inputs: dict[str, np.ndarray], options: Any) -> Any:
            key = "memory.enable_memory_arena_shrinkage"
            gave_back.append(options is not None and options.get_run_config_entry(key) == "cpu:0")
            return session.run(outputs, inputs, options)

    monkeypatch.setattr(encoder, "_session", Watched())
    query, passages = ["cats"], ["many words of a passage"] * 20
    for texts in (query, passages, query):
        encoder.encode(texts, "passage")
    assert not any(gave_back)
    monkeypatch.setattr(onnx_runtime, "KEEP_ROOM_S", 0.0)
    gave_back.clear()
    for texts in (query, query, passages, query, query):
        encoder.encode(texts, "passage")
    assert gave_back == [True, False, False, True, False]
