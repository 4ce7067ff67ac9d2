"""Running a student by torch, held against sentence-transformers itself."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import MultiVectorEncoder

from drdecr.encoder.batching import concatenate
from drdecr.encoder.load import load_encoder
from drdecr.encoder.settings import read_settings
from drdecr.encoder.torch_runtime import TorchEncoder, derive_settings, load_model
from drdecr.errors import ModelError

TEXTS = ["which package plays music ?", "the sound , player", "प्रश्न", "привет мир", "東京 " * 200]


@pytest.fixture(scope="module")
def encoder(two_stream_student: Path) -> TorchEncoder:
    return TorchEncoder.load(two_stream_student, device="cpu")


@pytest.fixture(scope="module")
def plain(plain_student: Path) -> TorchEncoder:
    return TorchEncoder.load(plain_student, device="cpu")


def test_scored_tokens_and_sentence_vectors_equal_sentence_transformers(encoder: TorchEncoder) -> None:
    reference = encoder.model.encode_document(TEXTS, convert_to_numpy=True)
    encoded = encoder.encode(TEXTS, "passage")
    for text in range(len(TEXTS)):
        assert np.allclose(encoded.tokens_of(text), reference[text], atol=1e-5)
    raw = encoder.model.encode_document(TEXTS, output_value=None)
    assert encoded.sentences is not None
    assert np.allclose(encoded.sentences, [row["sentence_embedding"].numpy() for row in raw], atol=1e-5)


def test_queries_are_cut_to_their_own_length(encoder: TorchEncoder) -> None:
    reference = encoder.model.encode_query(TEXTS, convert_to_numpy=True)
    encoded = encoder.encode(TEXTS, "query")
    assert encoded.truncated.tolist() == [False, False, False, False, True]
    for text in range(len(TEXTS)):
        assert np.allclose(encoded.tokens_of(text), reference[text], atol=1e-5)


def test_vectors_do_not_depend_on_the_batch(encoder: TorchEncoder) -> None:
    together = encoder.encode(TEXTS, "query")
    alone = concatenate([encoder.encode([text], "query") for text in TEXTS])
    assert np.allclose(together.vectors, alone.vectors, atol=1e-5)
    assert together.sentences is not None and alone.sentences is not None
    assert np.allclose(together.sentences, alone.sentences, atol=1e-5)


def test_empty_text_has_no_tokens_and_a_sentence_of_zeros(encoder: TorchEncoder) -> None:
    encoded = encoder.encode(["", "a"], "query")
    assert encoded.offsets[1] == 0
    assert encoded.sentences is not None
    assert np.allclose(np.linalg.norm(encoded.sentences, axis=1), [0, 1], atol=1e-5)


def test_threads_that_encode_side_by_side_get_the_same_vectors(two_stream_student: Path) -> None:
    # Loaded afresh: while it is first asked, nothing may put it into training.
    encoder = TorchEncoder.load(two_stream_student, device="cpu")
    assert not any(module.training for module in encoder.model.modules())
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: encoder.encode(TEXTS[:2], "query").vectors, range(100)))
    assert all(np.allclose(one, found[0], atol=1e-5) for one in found)


def test_encoding_leaves_the_model_as_it_was(two_stream_student: Path) -> None:
    model = load_model(two_stream_student, device="cpu")
    settings = read_settings(two_stream_student)
    assert settings is not None
    model.tokenizer.enable_padding(pad_id=3, pad_token="x")
    model.train()
    TorchEncoder(model, settings, "0" * 64).encode(["a text"], "query")
    assert model.training
    assert model.tokenizer.padding["pad_id"] == 3


def test_fewer_dimensions_are_the_first_ones_normalised(two_stream_student: Path, encoder: TorchEncoder) -> None:
    narrow = TorchEncoder(encoder.model, encoder.settings.model_copy(update={"dim": 4}), "0" * 64)
    whole, cut = encoder.encode(TEXTS, "query").vectors, narrow.encode(TEXTS, "query").vectors
    lengths = np.linalg.norm(whole, axis=1, keepdims=True)
    expected = lengths * whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    assert np.allclose(cut, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"), [({"dim": 32}, "16 dimensions"), ({"sentence_dim": 7}, "sentence vector of 7")]
)
def test_settings_that_promise_other_widths_are_refused(
    changes: dict[str, int], message: str, encoder: TorchEncoder
) -> None:
    wrong = TorchEncoder(encoder.model, encoder.settings.model_copy(update=changes), "0" * 64)
    with pytest.raises(ModelError, match=message):
        wrong.encode(["a"], "query")


def test_settings_of_a_plain_student_come_from_its_modules(plain: TorchEncoder) -> None:
    assert (plain.spec.dim, plain.spec.sentence_dim, plain.spec.sentence_weight) == (8, 0, 0.0)
    assert (plain.spec.query_length, plain.spec.passage_length) == (16, 24)
    tokenizer = plain.model.tokenizer
    assert plain.settings.query_prefix == (tokenizer.convert_tokens_to_ids("[Q]"),)
    assert plain.settings.passage_prefix == (tokenizer.convert_tokens_to_ids("[D]"),)
    assert plain.settings.passage_skip == (tokenizer.convert_tokens_to_ids(","),)
    assert plain.settings.query_skip == ()


def test_plain_student_gives_sentence_transformers_vectors(plain: TorchEncoder) -> None:
    texts = ["which package plays music ?", "the , sound"]
    queries = plain.model.encode_query(texts, convert_to_numpy=True)
    passages = plain.model.encode_document(texts, convert_to_numpy=True)
    ours_q, ours_p = plain.encode(texts, "query"), plain.encode(texts, "passage")
    for text in range(len(texts)):
        # Begin, marker and end too: nothing in the directory says that they are not scored.
        assert np.allclose(ours_q.tokens_of(text), queries[text], atol=1e-5)
        assert np.allclose(ours_p.tokens_of(text), passages[text], atol=1e-5)
    assert len(ours_q.tokens_of(1)) == len(ours_p.tokens_of(1)) + 1


def test_query_weights_of_a_student_without_settings_are_those_of_its_module(two_stream_student: Path) -> None:
    assert derive_settings(load_model(two_stream_student), "bare").query_weights


def test_prompt_that_runs_into_the_text_is_refused(plain_student: Path) -> None:
    model = MultiVectorEncoder(str(plain_student), device="cpu", prompts={"query": "what"})
    with pytest.raises(ModelError, match="runs together"):
        derive_settings(model, "prompted")


def test_student_that_brings_its_own_code_is_not_run(two_stream_student: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(two_stream_student, tmp_path / "copy"))
    (copy / "custom.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_encoder(copy, backend="torch")


def test_module_from_another_package_is_not_imported(two_stream_student: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(two_stream_student, tmp_path / "copy"))
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["type"] = "antigravity.Module"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_encoder(copy, backend="torch")


def test_broken_weights_are_told(two_stream_student: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(two_stream_student, tmp_path / "copy"))
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot load"):
        load_encoder(copy, backend="torch")


def test_bf16_gives_nearly_the_same_vectors_as_float32(two_stream_student: Path, encoder: TorchEncoder) -> None:
    narrow = TorchEncoder.load(two_stream_student, device="cpu", precision="bf16").encode(TEXTS, "passage")
    exact = encoder.encode(TEXTS, "passage")
    assert narrow.vectors.dtype == np.float32
    assert not np.array_equal(narrow.vectors, exact.vectors)
    assert np.allclose(np.linalg.norm(narrow.vectors, axis=1), 1, atol=1e-5)
    assert float((narrow.vectors * exact.vectors).sum(axis=1).min()) > 0.995


def test_torch_serves_in_two_steps_as_onnx_does(encoder: TorchEncoder) -> None:
    whole = encoder.encode(TEXTS, "query")
    halves = encoder.encode_tokens(encoder.tokenize(TEXTS, "query"))
    assert np.array_equal(whole.vectors, halves.vectors)


def test_lengths_of_query_vectors_follow_the_weights_and_have_mean_one(encoder: TorchEncoder) -> None:
    encoded = encoder.encode(["which package plays music ?"], "query")
    lengths = np.linalg.norm(encoded.vectors, axis=1)
    ids = encoder.tokenize(["which package plays music ?"], "query")[0]
    weights = encoder.model[3].log_weights.detach().exp().numpy()[ids.ids[ids.scored]]
    assert lengths.std() > 0.1
    assert np.allclose(lengths, weights / weights.mean(), atol=1e-5)


def test_passages_are_not_weighted(encoder: TorchEncoder) -> None:
    encoded = encoder.encode(["which package plays music ?"], "passage")
    assert np.allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-5)


def test_settings_that_promise_query_weights_of_a_student_without_are_refused(plain: TorchEncoder) -> None:
    wrong = TorchEncoder(plain.model, plain.settings.model_copy(update={"query_weights": True}), "0" * 64)
    with pytest.raises(ModelError, match="promise query weights"):
        wrong.encode(["music"], "query")
