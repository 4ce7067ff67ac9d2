"""A student's compact form against the student, and the student made of it again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file, save_file

from drdecr import cli
from drdecr.corpus import Passage, Query
from drdecr.encoder.load import load_encoder
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import read_manifest
from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.encoder.types import Encoder
from drdecr.errors import ModelError, UsageError
from training import onnx_quality
from training.compact import export as compact_export
from training.compact.export import export_compact
from training.compact.graph import shrink_tables
from training.compact.product_codes import product_codes
from training.compact.weights import is_compact, match_weights, unpack
from training.models import Models
from training.onnx_graph import export_graph, quantize
from training.ranking_quality import JudgedTexts
from training.recipe import Recipe, Stage

SUBJECTS = ("music player", "image viewer", "text editor", "web server", "chess game", "backup tool")
JUDGED = JudgedTexts(
    queries=[Query(f"q{i}", subject) for i, subject in enumerate(SUBJECTS)],
    passages=[Passage(f"p{i}", f"A {subject} of the best kind.") for i, subject in enumerate(SUBJECTS)],
    qrels={f"q{i}": {f"p{i}": 1} for i in range(len(SUBJECTS))},
)
TEXTS = ["hello world", "привет", "東京 tower " * 100, "a"]
# What multiplying in 8 bits moves a component of a unit vector by, at most.
EIGHT_BITS = 0.06


@pytest.fixture(scope="module", autouse=True)
def _each_graph_is_exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the exact graph of each student: torch takes a dozen seconds to export it."""
    folder = tmp_path_factory.mktemp("graphs")

    def export_once(reference: TorchEncoder, file: Path) -> None:
        kept = folder / reference.spec.fingerprint
        if not kept.exists():
            export_graph(reference, kept)
        shutil.copyfile(kept, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact_export, "export_graph", export_once)
        yield


@pytest.fixture(scope="module")
def compact(two_stream_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compact") / "small"
    with pytest.MonkeyPatch.context() as patch:
        # A student of random weights ranks by chance: the gate has its own test.
        patch.setattr(onnx_quality, "LARGEST_NDCG_LOSS", 1.0)
        export_compact(two_stream_student, place, JUDGED, threads=1)
    return place


@pytest.fixture(scope="module")
def unpacked(compact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(compact, tmp_path_factory.mktemp("unpacked") / "student")


def test_compact_form_serves_alone_and_near_the_student(compact: Path, two_stream_student: Path) -> None:
    served, reference = load_encoder(compact, threads=1), TorchEncoder.load(two_stream_student, device="cpu")
    assert isinstance(served, OnnxEncoder) and served.precision == "int8"
    ours, theirs = served.encode(TEXTS, "passage"), reference.encode(TEXTS, "passage")
    assert ours.offsets.tolist() == theirs.offsets.tolist()
    assert (ours.vectors * theirs.vectors).sum(axis=1).mean() > 0.97
    assert ours.sentences is not None and theirs.sentences is not None
    # Random weights may blow a coded table's error up for one text.
    assert np.median((ours.sentences * theirs.sentences).sum(axis=1)) > 0.97


def test_compact_form_has_a_fingerprint_of_its_own_and_both_qualities(
    compact: Path, two_stream_student: Path
) -> None:
    manifest = read_manifest(compact)
    assert manifest.fingerprint != TorchEncoder.load(two_stream_student, device="cpu").spec.fingerprint
    assert manifest.files == {"int8": "model.int8.onnx"} and manifest.serves == "int8"
    assert set(manifest.quality) == {"fp32", "int8"}
    assert all(quality.ndcg_at_10 is not None for quality in manifest.quality.values())


def test_compact_form_is_smaller_than_the_int8_export(
    compact: Path, two_stream_student: Path, tmp_path: Path
) -> None:
    full = tmp_path / "model.int8.onnx"
    exact = tmp_path / "model.onnx"
    compact_export.export_graph(TorchEncoder.load(two_stream_student, device="cpu"), exact)
    quantize(exact, full, narrowing_exact=False)
    small = compact / "onnx" / "model.int8.onnx"
    # The tables of this student are a third of it, not four fifths as those of the real one.
    assert small.stat().st_size < full.stat().st_size
    graph = onnx.load(small).graph
    assert not [one.name for one in graph.initializer if one.dims and one.dims[0] > 1000 and one.data_type == 1]


def test_weights_that_are_zero_take_no_room(two_stream_student: Path, tmp_path: Path) -> None:
    student = Path(shutil.copytree(two_stream_student, tmp_path / "student"))
    weights = load_file(student / "model.safetensors")
    weights["sentence_head.own.weight"].zero_()
    save_file(weights, student / "model.safetensors")
    found, names = match_weights(student, {})
    held, others = found.held["model.safetensors"], found.others["model.safetensors"]
    assert held["sentence_head.own.weight"]["initializer"] is None and not names
    assert weights.keys() == held.keys() | others.keys()
    assert all(not weights[key].any() for key in held) and all(array.any() for array in others.values())


def test_changed_graph_is_refused_by_both_ways_back(compact: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(compact, tmp_path / "copy"))
    with (copy / "onnx" / "model.int8.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match="SHA-256"):
        load_encoder(copy)
    with pytest.raises(ModelError, match="SHA-256"):
        unpack(copy, tmp_path / "student")


def test_unpacked_student_gives_the_compact_vectors(compact: Path, unpacked: Path) -> None:
    served, again = load_encoder(compact, threads=1), load_encoder(unpacked, threads=1)
    assert isinstance(again, TorchEncoder)
    for kind in ("query", "passage"):
        ours, theirs = served.encode(TEXTS, kind), again.encode(TEXTS, kind)
        assert np.abs(ours.vectors - theirs.vectors).max() < EIGHT_BITS
        # The sentence vector's own layers are multiplied exactly; it reads a mean of what is not.
        assert ours.sentences is not None and theirs.sentences is not None
        assert np.abs(ours.sentences - theirs.sentences).max() < EIGHT_BITS / 4
    assert again.settings == TorchEncoder.load(unpacked).settings


def test_unpacked_tables_are_those_of_the_graph_and_the_rest_is_near(
    unpacked: Path, two_stream_student: Path
) -> None:
    before, after = (
        TorchEncoder.load(one, device="cpu").model.state_dict() for one in (two_stream_student, unpacked)
    )
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert weight.dtype == after[name].dtype and weight.shape == after[name].shape
        difference = (weight.float() - after[name].float()).abs().max()
        # Coded tables are coarser than the largest weight in 8 bits; whole numbers that index rows are exact.
        assert difference <= (0.25 if weight.ndim and len(weight) > 1000 else 0.02) * weight.float().abs().max()
    assert (before["0.context.embedding.rows"] == after["0.context.embedding.rows"]).all()


def test_unpacked_student_can_be_compacted_again(unpacked: Path, tmp_path: Path) -> None:
    export_compact(unpacked, tmp_path / "again", JUDGED, threads=1)
    assert is_compact(tmp_path / "again")


def test_weight_of_each_piece_goes_through_the_compact_form(compact: Path, unpacked: Path) -> None:
    assert not list(compact.rglob("*.safetensors"))
    served, again = (load_encoder(one, threads=1).encode(TEXTS, "query") for one in (compact, unpacked))
    ours, theirs = (np.linalg.norm(one.vectors, axis=1) for one in (served, again))
    assert ours.std() > 0.1
    assert np.allclose(ours, theirs, atol=1e-3)


def test_recipe_starts_from_a_compact_student(compact: Path, tmp_path: Path) -> None:
    recipe = Recipe(name="again", student=str(compact), parallel=["x"], stages=[Stage(name="one", steps=10)])
    models = Models(recipe, tmp_path / "models", {}, say=lambda line: None)
    student = models.student(str(compact))
    assert student.parent == tmp_path / "models"
    assert load_encoder(student, threads=1).spec.dim == 16
    written = (student / "modules.json").stat().st_mtime_ns
    assert models.student(str(compact)) == student
    assert (student / "modules.json").stat().st_mtime_ns == written


def test_compact_form_that_ranks_badly_is_not_written(
    two_stream_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ndcg(encoder: Encoder, _: JudgedTexts) -> float:
        assert isinstance(encoder, OnnxEncoder)
        return 0.80 if encoder.precision == "fp32" else 0.794

    monkeypatch.setattr(onnx_quality, "ndcg_at_10", ndcg)
    with pytest.raises(ModelError, match=r"0\.7940 and fp32 0\.8000"):
        export_compact(two_stream_student, tmp_path / "small", JUDGED, threads=1)
    assert not (tmp_path / "small").exists()


def test_another_export_leaves_the_card_and_replaces_the_rest(
    compact: Path, two_stream_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "small"
    (place / "onnx").mkdir(parents=True)
    (place / "onnx" / "model.onnx").touch()
    (place / "README.md").write_text("the card")
    monkeypatch.setattr(onnx_quality, "LARGEST_NDCG_LOSS", 1.0)
    monkeypatch.setattr(compact_export, "export_graph", export_graph)
    export_compact(two_stream_student, place, JUDGED, threads=1)
    assert (place / "README.md").read_text() == "the card"
    assert sorted(path.name for path in place.iterdir()) == ["README.md", "onnx", "torch"]
    assert sorted(path.name for path in (place / "onnx").iterdir()) == [
        "encoder.json",
        "model.int8.onnx",
        "tokenizer.json",
    ]
    # The same student gives the same bytes, its graph too.
    assert read_manifest(place).sha256 == read_manifest(compact).sha256


def test_student_is_never_overwritten_by_its_compact_form(two_stream_student: Path) -> None:
    with pytest.raises(UsageError, match="name a directory of its own"):
        export_compact(two_stream_student, two_stream_student, JUDGED)


def test_whole_numbers_stay_whole_and_are_coded_near() -> None:
    table = np.random.default_rng(0).integers(0, 256, (3000, 6)).astype(np.uint8)
    coded = product_codes(table, 2)
    assert (coded.codes.shape, coded.codebook.shape) == ((3000, 3), (3 * 256, 2))
    decoded = coded.decode()
    assert decoded.dtype == np.uint8
    # 256 cells over a square of 256 x 256: about 16 wide.
    assert np.abs(decoded.astype(int) - table).mean() < 6


def test_groups_of_few_different_rows_are_coded_exactly() -> None:
    rng = np.random.default_rng(0)
    # As in the package's n-gram table: a few rows are most of it, others are rare and far away.
    cells = rng.integers(0, 256, (256, 2)).astype(np.uint8)
    drawn = np.minimum(rng.zipf(1.5, 5000) - 1, 255)
    drawn[:256] = np.arange(256)
    table = np.hstack([cells[drawn], cells[drawn[::-1]]])
    assert (product_codes(table, 2).decode() == table).all()


def test_column_of_few_floats_is_as_exact_as_float16() -> None:
    table = np.random.default_rng(0).choice(np.linspace(-1, 1, 9), (2000, 3)).astype(np.float32)
    assert (product_codes(table, 1).decode() == table.astype(np.float16)).all()


def test_rows_that_occur_often_are_coded_nearer_and_each_time_alike() -> None:
    rng = np.random.default_rng(0)
    often = np.tile(rng.standard_normal((200, 3)), (50, 1))
    table = np.vstack([often, 3 * rng.standard_normal((2000, 3))]).astype(np.float32)
    coded = product_codes(table, 3)
    error = np.square(coded.decode().astype(np.float32) - table).sum(axis=1)
    assert error[: len(often)].mean() < error[len(often) :].mean() / 4
    again = product_codes(table, 3)
    assert (coded.codes == again.codes).all() and (coded.codebook == again.codebook).all()


def test_table_that_is_also_multiplied_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    table = onnx.numpy_helper.from_array(rng.standard_normal((2000, 4)).astype(np.float32), "table")
    nodes = [
        onnx.helper.make_node("Gather", ["table", "ids"], ["rows"]),
        onnx.helper.make_node("MatMul", ["table", "query"], ["scores"]),
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "tied", [], [], [table]))
    shrink_tables(model)
    assert [one.name for one in model.graph.initializer] == ["table"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compact", "OUT"], "--compact is written only if it ranks well"),
        (["--compact", "OUT", "--onnx", "--passages", "p.jsonl"], "name one format to write"),
        ([], "name one format to write"),
    ],
)
def test_command_names_one_format_and_its_gate(
    arguments: list[str],
    says: str,
    two_stream_student: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["drdecr", "export", str(two_stream_student), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_command_prints_what_it_measured_and_the_size(
    two_stream_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    passages = tmp_path / "passages.jsonl"
    passages.write_text("".join(json.dumps({"id": one.id, "text": one.text}) + "\n" for one in JUDGED.passages))
    monkeypatch.setattr(onnx_quality, "LARGEST_NDCG_LOSS", 1.0)
    out = tmp_path / "small"
    arguments = [str(two_stream_student), f"--compact={out}", f"--passages={passages}", "--threads=1", "--json"]
    monkeypatch.setattr(sys, "argv", ["drdecr", "export", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["quality"]["int8"]["queries"] == len(SUBJECTS)
    assert printed["size_bytes"] == sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
