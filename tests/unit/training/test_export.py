"""The exported student against the student itself."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from drdecr.corpus import Passage, Query
from drdecr.encoder.load import load_encoder
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import OnnxManifest, fingerprint_student, read_manifest
from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.encoder.types import Encoder
from drdecr.errors import InputError, ModelError
from training import export, onnx_quality
from training.commands import export as export_command
from training.export import export_onnx
from training.onnx_graph import quantize
from training.ranking_quality import JudgedTexts, generated_judgments

SUBJECTS = ("music player", "image viewer", "text editor", "web server", "chess game", "backup tool")
JUDGED = JudgedTexts(
    queries=[Query(f"q{i}", subject) for i, subject in enumerate(SUBJECTS)],
    passages=[Passage(f"p{i}", f"A {subject} of the best kind.") for i, subject in enumerate(SUBJECTS)],
    qrels={f"q{i}": {f"p{i}": 1} for i in range(len(SUBJECTS))},
)
TEXTS = ["hello world", "", "привет", "東京 tower " * 100, "a"]


@pytest.fixture(scope="module")
def exported(two_stream_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    student = Path(shutil.copytree(two_stream_student, tmp_path_factory.mktemp("exported") / "student"))
    export_onnx(student, judged=JUDGED, threads=1)
    return student


def test_exported_vectors_equal_torch_for_both_kinds(exported: Path) -> None:
    served = OnnxEncoder.load(exported, threads=1, precision="fp32")
    reference = TorchEncoder.load(exported, device="cpu")
    for kind in ("query", "passage"):
        ours, theirs = served.encode(TEXTS, kind), reference.encode(TEXTS, kind)
        assert ours.offsets.tolist() == theirs.offsets.tolist()
        assert np.allclose(ours.vectors, theirs.vectors, atol=1e-5)
        assert ours.sentences is not None and theirs.sentences is not None
        assert np.allclose(ours.sentences, theirs.sentences, atol=1e-5)
        assert np.array_equal(ours.spans, theirs.spans)
    assert served.spec == reference.spec


def test_manifest_stores_what_was_measured(exported: Path) -> None:
    quality = read_manifest(exported).quality
    assert set(quality) == {"fp32", "int8"}
    assert quality["fp32"].largest_difference < 1e-5 < quality["int8"].largest_difference
    for figures in quality.values():
        assert figures.ndcg_at_10 is not None and 0.5 < figures.ndcg_at_10 <= 1.0
        assert figures.queries == len(SUBJECTS)


def test_int8_is_near_fp32(exported: Path) -> None:
    exact = OnnxEncoder.load(exported, threads=1, precision="fp32").encode(TEXTS, "passage")
    quantized = OnnxEncoder.load(exported, threads=1, precision="int8").encode(TEXTS, "passage")
    assert (exact.vectors * quantized.vectors).sum(axis=1).min() > 0.9
    assert not np.allclose(exact.vectors, quantized.vectors, atol=1e-4)


def test_int8_leaves_the_sentence_vectors_own_layers_exact(exported: Path) -> None:
    own = {
        node.name
        for node in onnx.load(exported / "onnx" / "model.onnx").graph.node
        if node.op_type in ("MatMul", "Gemm")
        and any(part in entry.value for entry in node.metadata_props for part in ("0.ngram.", "0.sentence_head."))
    }
    kept = {node.name.removesuffix("_MatMul") for node in onnx.load(exported / "onnx" / "model.int8.onnx").graph.node}
    assert len(own) == 16
    assert own <= kept


def test_int8_moves_the_sentence_vector_little(exported: Path) -> None:
    exact = OnnxEncoder.load(exported, threads=1, precision="fp32").encode(TEXTS, "query")
    quantized = OnnxEncoder.load(exported, threads=1, precision="int8").encode(TEXTS, "query")
    assert exact.sentences is not None and quantized.sentences is not None
    assert (exact.sentences * quantized.sentences).sum(axis=1)[[0, 2, 3, 4]].min() > 0.999


def test_eight_bit_table_stays_eight_bits_wide(exported: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        graph = onnx.load(exported / "onnx" / name).graph
        tables = [tensor for tensor in graph.initializer if list(tensor.dims)[1:] == [24] and tensor.dims[0] > 1000]
        assert [tensor.data_type for tensor in tables] == [onnx.TensorProto.UINT8]


def test_loading_the_student_prefers_the_export(exported: Path) -> None:
    encoder = load_encoder(exported, threads=1)
    assert isinstance(encoder, OnnxEncoder)
    assert encoder.spec.fingerprint == fingerprint_student(exported)


def test_student_saved_again_after_the_export_is_refused(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "drdecr.json").write_text((copy / "drdecr.json").read_text().replace('"two-stream"', '"other"'))
    with pytest.raises(ModelError, match="changed since"):
        load_encoder(copy)


@pytest.fixture
def quick_export(exported: Path, two_stream_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student whose graph and int8 twin are copied from an export of before."""

    def graph_of_before(_: TorchEncoder, file: Path) -> None:
        shutil.copy(exported / "onnx" / "model.onnx", file)

    def twin_of_before(_: Path, file: Path, *, narrowing_exact: bool) -> None:
        shutil.copy(exported / "onnx" / "model.int8.onnx", file)

    monkeypatch.setattr(export, "export_graph", graph_of_before)
    monkeypatch.setattr(export, "quantize", twin_of_before)
    return Path(shutil.copytree(two_stream_student, tmp_path / "student"))


@pytest.mark.parametrize(("int8_ndcg", "serves"), [(0.85, "int8"), (0.796, "int8"), (0.794, "fp32")])
def test_int8_serves_only_within_half_a_point_of_fp32(
    int8_ndcg: float, serves: str, quick_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ndcg(encoder: Encoder, _: JudgedTexts) -> float:
        assert isinstance(encoder, OnnxEncoder)
        return 0.80 if encoder.precision == "fp32" else int8_ndcg

    monkeypatch.setattr(onnx_quality, "ndcg_at_10", ndcg)
    assert export_onnx(quick_export, judged=JUDGED, threads=1).serves == serves
    loaded = load_encoder(quick_export, threads=1)
    assert isinstance(loaded, OnnxEncoder)
    assert loaded.precision == serves


def test_int8_that_ranks_badly_is_tried_again_with_fewer_layers(
    exported: Path, quick_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = quantize

    def ndcg(encoder: Encoder, _: JudgedTexts) -> float:
        return scores.pop(0)

    scores = [0.80, 0.70, 0.80]
    monkeypatch.setattr(export, "quantize", real)
    monkeypatch.setattr(onnx_quality, "ndcg_at_10", ndcg)
    manifest = export_onnx(quick_export, judged=JUDGED, threads=1)
    assert (manifest.serves, manifest.quality["int8"].ndcg_at_10) == ("int8", 0.80)
    careful, bold = quick_export / "onnx" / "model.int8.onnx", exported / "onnx" / "model.int8.onnx"
    assert careful.stat().st_size > bold.stat().st_size
    assert load_encoder(quick_export, threads=1).encode(["text"], "query").vectors.shape[1] == 16


def test_int8_without_judged_texts_does_not_serve(quick_export: Path) -> None:
    manifest = export_onnx(quick_export, threads=1)
    assert manifest.serves == "fp32"
    assert manifest.quality["int8"].ndcg_at_10 is None


def test_export_without_int8_writes_one_graph_and_replaces_the_older_folder(quick_export: Path) -> None:
    export_onnx(quick_export, threads=1)
    export_onnx(quick_export, int8=False, threads=1)
    assert sorted(path.name for path in (quick_export / "onnx").iterdir()) == [
        "encoder.json",
        "model.onnx",
        "tokenizer.json",
    ]
    assert not list(quick_export.glob(".onnx*"))


def test_graph_with_other_vectors_is_refused_and_the_older_export_stays(
    exported: Path, quick_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong_graph(_: TorchEncoder, file: Path) -> None:
        shutil.copy(exported / "onnx" / "model.int8.onnx", file)

    before: OnnxManifest = export_onnx(quick_export, threads=1)
    monkeypatch.setattr(export, "export_graph", wrong_graph)
    with pytest.raises(ModelError, match="differ from torch's"):
        export_onnx(quick_export, threads=1)
    assert read_manifest(quick_export) == before
    assert not list(quick_export.glob(".onnx*"))


@pytest.mark.parametrize("part", ["vectors", "sentences"])
def test_student_without_numbers_is_refused_and_the_older_export_stays(
    part: str, quick_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: OnnxManifest = export_onnx(quick_export, threads=1)
    encode = TorchEncoder.encode_tokens

    def diverged(*given: Any, **more: Any) -> Any:
        encoded = encode(*given, **more)
        return replace(encoded, **{part: np.full_like(getattr(encoded, part), np.nan)})

    monkeypatch.setattr(TorchEncoder, "encode_tokens", diverged)
    with pytest.raises(ModelError, match="differ from torch's by nan"):
        export_onnx(quick_export, threads=1)
    assert read_manifest(quick_export) == before


def test_student_too_large_for_one_file_is_told_before_the_export(
    two_stream_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.onnx_graph._MOST_BYTES", 1_000)
    student = Path(shutil.copytree(two_stream_student, tmp_path / "student"))
    with pytest.raises(ModelError, match="an ONNX file holds 2 at most; torch serves it"):
        export_onnx(student, threads=1)
    assert not (student / "onnx").exists()


def run_export(student: Path, *options: str | Path) -> Result:
    return CliRunner().invoke(export_command, [str(student), "--onnx", "--int8", *map(str, options)])


def test_refused_int8_is_told_with_both_figures_and_fp32_stays(
    quick_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ndcg(encoder: Encoder, _: JudgedTexts) -> float:
        assert isinstance(encoder, OnnxEncoder)
        return 0.80 if encoder.precision == "fp32" else 0.70

    monkeypatch.setattr(onnx_quality, "ndcg_at_10", ndcg)
    lines = (f'{{"id": "{passage.id}", "text": "{passage.text}"}}\n' for passage in JUDGED.passages)
    (tmp_path / "passages.jsonl").write_text("".join(lines))
    done = run_export(quick_export, "--passages", tmp_path / "passages.jsonl")
    assert isinstance(done.exception, ModelError)
    assert "int8 refused" in str(done.exception)
    assert "0.7000" in str(done.exception) and "0.8000" in str(done.exception)
    assert read_manifest(quick_export).serves == "fp32"


def test_queries_are_made_of_the_passages_where_none_are_given(quick_export: Path, tmp_path: Path) -> None:
    lines = (f'{{"id": "{passage.id}", "text": "{passage.text}"}}\n' for passage in JUDGED.passages)
    (tmp_path / "passages.jsonl").write_text("".join(lines))
    done = run_export(quick_export, "--passages", tmp_path / "passages.jsonl", "--json")
    assert done.exception is None, done.output
    quality = read_manifest(quick_export).quality
    assert quality["int8"].queries == len(SUBJECTS)
    assert quality["int8"].ndcg_at_10 is not None


def test_generated_queries_repeat_and_name_their_passage() -> None:
    first, again = (generated_judgments(JUDGED.passages, count=4) for _ in range(2))
    assert first == again
    texts = {passage.id: passage.content.split() for passage in JUDGED.passages}
    for query in first.queries:
        (relevant,) = first.qrels[query.id]
        assert set(query.text.split()) <= set(texts[relevant])
    with pytest.raises(InputError, match="no passage has any text"):
        generated_judgments([Passage("0", " ")])
