"""Imported checkpoints give the vectors of the libraries which wrote them (tests/reference/ made the files)."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentence_transformers import MultiVectorEncoder

from drdecr.encoder.batching import concatenate
from drdecr.encoder.checkpoints.importing import REPORT_FILE, import_checkpoint
from drdecr.encoder.load import load_encoder
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import read_settings
from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.encoder.types import Encoder
from drdecr.index.snapshot import Snapshot
from indexer.build import build
from training.export import export_onnx

REFERENCE = Path(__file__).parents[2] / "reference"
sys.path.insert(0, str(REFERENCE))
from reference_vectors import read_vectors  # noqa: E402
from tiny_backbones import TEXTS, make_primeqa  # noqa: E402

DIRECTORIES = (
    "native",
    "native-expanding",
    "pylate",
    "pylate-attending",
    "pylate-residual",
    "colbert",
    "colbert-xlmr",
    "plaidx",
    "jina",
)


def largest_difference(encoder: Encoder, reference: Path) -> float:
    stored = read_vectors(reference)
    largest = 0.0
    for kind in ("query", "passage"):
        encoded = encoder.encode(TEXTS, kind)  # type: ignore[arg-type]
        assert np.diff(encoded.offsets).tolist() == [len(vectors) for vectors in stored[kind]], kind
        largest = max(largest, float(np.abs(encoded.vectors - np.concatenate(stored[kind])).max()))
    return largest


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every directory as an imported and exported student, under its name."""
    folder = tmp_path_factory.mktemp("imported")
    for name in DIRECTORIES:
        remote, compat = name == "jina", name == "pylate-attending"
        report = import_checkpoint(REFERENCE / name, folder / name, trust_remote_code=remote, compat=compat)
        assert report.settings == read_settings(folder / name)
        export_onnx(folder / name, int8=False, threads=1, trust_remote_code=remote)
    return folder


@pytest.mark.parametrize("name", DIRECTORIES)
def test_directory_gives_its_own_librarys_vectors(name: str, students: Path) -> None:
    torch = TorchEncoder.load(students / name, device="cpu", trust_remote_code=name == "jina")
    for encoder in (torch, OnnxEncoder.load(students / name, threads=1)):
        assert largest_difference(encoder, REFERENCE / f"{name}.npz") < 1e-5


@pytest.mark.parametrize("name", DIRECTORIES)
def test_vectors_are_the_same_in_any_batch(name: str, students: Path) -> None:
    encoder = OnnxEncoder.load(students / name, threads=1)
    for kind in ("query", "passage"):
        together = encoder.encode(TEXTS[::-1], kind)  # type: ignore[arg-type]
        alone = concatenate([encoder.encode([text], kind) for text in TEXTS[::-1]])  # type: ignore[arg-type]
        assert np.array_equal(together.offsets, alone.offsets)
        assert np.allclose(together.vectors, alone.vectors, atol=1e-5)


@pytest.mark.parametrize("name", DIRECTORIES)
def test_imported_directory_loads_in_sentence_transformers_with_equal_vectors(name: str, students: Path) -> None:
    model = MultiVectorEncoder(str(students / name), device="cpu", trust_remote_code=name == "jina")
    stored = read_vectors(REFERENCE / f"{name}.npz")
    sides = {"query": model.encode_query, "passage": model.encode_document}
    for kind, encode in sides.items():
        for own, theirs in zip(encode(TEXTS, convert_to_numpy=True), stored[kind], strict=True):
            if name == "pylate-attending" and kind == "passage":
                # sentence-transformers does not share PyLate's mistake with unknown skip words.
                assert len(own) >= len(theirs)
            else:
                assert np.allclose(own, theirs, atol=1e-5)
    report = json.loads((students / name / REPORT_FILE).read_text())
    assert report["sentence_transformers_difference"] is None or report["sentence_transformers_difference"] < 1e-5


@pytest.mark.parametrize("name", DIRECTORIES)
def test_imported_student_builds_an_index_and_searches_it(name: str, students: Path, tmp_path: Path) -> None:
    lines = (json.dumps({"id": str(at), "text": text}) for at, text in enumerate(TEXTS))
    (tmp_path / "passages.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    encoder = load_encoder(students / name, threads=1)
    build(encoder, tmp_path / "passages.jsonl", tmp_path / "snapshot")
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        snapshot.require(encoder.spec)
        hits = snapshot.search(encoder.encode(TEXTS[2:3], "passage"), 3)[0]
    assert hits[0].id == "2"


@pytest.mark.parametrize("name", ["pylate", "colbert-xlmr", "native-expanding"])
def test_any_text_is_encoded_within_the_limits(name: str, students: Path) -> None:
    encoder = OnnxEncoder.load(students / name, threads=1)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text(st.characters(exclude_categories=()), max_size=40), max_size=3))
    @example(["\ud83d alone", "\u202e\u200f\u2066 right to left", "👩🏽‍🚀🏳️‍🌈", "\x00\x07\x1b[0m"])
    @example(["ไ" * 1_000_000, "[unused0] [MASK] <s>"])
    def encodes(texts: list[str]) -> None:
        for kind in ("query", "passage"):
            encoded = encoder.encode(texts, kind)  # type: ignore[arg-type]
            limit = encoder.spec.query_length if kind == "query" else encoder.spec.passage_length
            assert np.diff(encoded.offsets).max(initial=0) <= limit
            assert np.isfinite(encoded.vectors).all()
            for text, (low, high) in zip(texts, pairwise(encoded.offsets), strict=True):
                spans = encoded.spans[low:high]
                assert ((spans[:, 0] >= 0) & (spans[:, 0] <= spans[:, 1]) & (spans[:, 1] <= len(text))).all()

    encodes()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("東京の天気", ["東", "京", "の", "天", "気"]),
        ("ภาษาไทย", list("ภาษาไทย")),
        ("أين تقع", ["أ", "ي", "ن", "ت", "ق", "ع"]),
    ],
)
def test_spans_of_an_imported_student_are_the_characters_of_the_text(
    text: str, pieces: list[str], students: Path
) -> None:
    encoded = OnnxEncoder.load(students / "colbert", threads=1).encode([text], "passage")
    found = [text[start:end] for start, end in encoded.spans]
    # The begin, the marker and the end stand for no characters.
    assert [piece for piece in found if piece] == pieces
    assert found[:2] == ["", ""] and found[-1] == ""


@pytest.mark.parametrize("generation", ["A", "B"])
def test_primeqa_file_gives_primeqas_vectors(generation: str, tmp_path: Path) -> None:
    base, checkpoint = make_primeqa(tmp_path, generation)
    import_checkpoint(checkpoint, tmp_path / "s", base=str(base), compat=True)
    encoder = TorchEncoder.load(tmp_path / "s", device="cpu")
    stored = read_vectors(REFERENCE / f"primeqa-{generation}.npz")
    queries, passages = encoder.encode(TEXTS, "query"), encoder.encode(TEXTS, "passage")
    for text in range(len(TEXTS)):
        # The library's newest code zeroes what begins a query; ours leaves it out for B, and scores it, as the code
        # of its time did, for A.
        mine = queries.tokens_of(text)[1:] if generation == "A" else queries.tokens_of(text)
        assert not stored["query"][text][0].any()
        assert np.allclose(mine, stored["query"][text][1:], atol=1e-5)
        own, theirs = passages.tokens_of(text), stored["passage"][text]
        assert np.allclose(own, theirs[: len(own)], atol=1e-5)
        # Beyond ours, theirs repeats the one vector of padding that ours holds last.
        assert np.allclose(theirs[len(own) :], own[-1], atol=1e-5)
    longest = max(range(len(TEXTS)), key=lambda text: len(stored["passage"][text]))
    assert len(passages.tokens_of(longest)) == len(stored["passage"][longest])
