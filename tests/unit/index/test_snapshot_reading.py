"""Opening a snapshot, and reading passages and explanations from it."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from fabricated_vectors import WordEncoder, encoded, make_snapshot

from drdecr.corpus import Passage
from drdecr.errors import ModelMismatchError, SnapshotCorruptError, SnapshotError, UsageError
from drdecr.index import EXACT, Snapshot
from drdecr.index.candidates import CandidateFinder, Knobs
from drdecr.index.manifest import MANIFEST, read_manifest, write_manifest
from drdecr.index.score import query_lanes
from indexer.build import build

PASSAGES = [
    {"id": "kbd", "text": "Change the keyboard layout", "title": "Keyboard", "metadata": {"section": "x11", "n": 3}},
    {"id": "größe", "text": "Größe der Datei 大きさ"},
    {"id": "mail", "text": "Read mail, read news", "metadata": {"tags": ["mail", "news"]}},
]


@pytest.fixture(scope="module")
def encoder() -> WordEncoder:
    return WordEncoder(16, 8)


@pytest.fixture
def path(tmp_path: Path, encoder: WordEncoder) -> Path:
    file = tmp_path / "passages.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in PASSAGES), encoding="utf-8")
    build(encoder, file, tmp_path / "snapshot")
    return tmp_path / "snapshot"


def test_passages_come_back_as_they_were(path: Path) -> None:
    with Snapshot.open(path) as snapshot:
        assert snapshot.passage("kbd") == Passage(
            "kbd", "Change the keyboard layout", "Keyboard", {"section": "x11", "n": 3}
        )
        assert snapshot.passage("nobody") is None
        found = snapshot.passages(["mail", "nobody", "größe"])
        assert found["größe"].text == "Größe der Datei 大きさ"
        assert found["mail"].metadata == {"tags": ["mail", "news"]}
        assert set(found) == {"mail", "größe"}
        assert snapshot.position("mail") == 2
        assert snapshot.position("nobody") is None


def test_thousands_of_passages_are_read_at_once(tmp_path: Path) -> None:
    with make_snapshot(tmp_path, encoded([1] * 2500, 8)) as snapshot:
        assert len(snapshot.passages([f"p{i}" for i in range(2500)])) == 2500


def test_explanation_points_at_the_matching_words(path: Path, encoder: WordEncoder) -> None:
    with Snapshot.open(path) as snapshot:
        query = encoder.encode(["news layout"], "query")
        assert snapshot.search(query, 1, EXACT)[0][0].id in {"kbd", "mail"}
        layout, mail = snapshot.explain(query, 0)[1], snapshot.explain(query, 2)[0]
        content = snapshot.passage("kbd").content  # type: ignore[union-attr]
        assert layout.span is not None and content[slice(*layout.span)] == "layout"
        assert layout.score == pytest.approx(1, abs=1e-3)
        assert mail.span is not None and "Read mail, read news"[slice(*mail.span)] == "news"
        assert mail.passage_token == 3


def test_explanation_adds_up_to_the_maxsim_of_the_hit(tmp_path: Path) -> None:
    queries = encoded([4, 40], 16, seed=9)
    with make_snapshot(tmp_path, encoded([5, 20, 9], 16)) as snapshot:
        for hit in snapshot.search(queries, 3, EXACT)[1]:
            matches = snapshot.explain(queries, hit.position, text=1)
            assert len(matches) == 40
            assert sum(match.score for match in matches) == pytest.approx(hit.score, abs=1e-5)
            assert all(match.span is None for match in matches)


def test_passage_without_tokens_has_no_explanation(tmp_path: Path) -> None:
    with make_snapshot(tmp_path, encoded([0, 2], 8)) as snapshot:
        assert snapshot.explain(encoded([3], 8), 0) == []


def test_position_outside_the_snapshot_is_refused(path: Path, encoder: WordEncoder) -> None:
    with Snapshot.open(path) as snapshot, pytest.raises(UsageError, match="no passage at position 3"):
        snapshot.explain(encoder.encode(["x"], "query"), 3)


def test_student_that_built_the_snapshot_is_accepted(path: Path, encoder: WordEncoder) -> None:
    with Snapshot.open(path) as snapshot:
        snapshot.require(encoder.spec)
        assert snapshot.fingerprint == encoder.spec.fingerprint


def test_another_student_is_refused_with_both_fingerprints(path: Path, encoder: WordEncoder) -> None:
    other = replace(encoder.spec, fingerprint="f" * 64)
    with Snapshot.open(path) as snapshot, pytest.raises(ModelMismatchError) as caught:
        snapshot.require(other)
    assert "f" * 64 in str(caught.value)
    assert encoder.spec.fingerprint in str(caught.value)


def test_student_of_another_dimension_is_refused_with_both_dimensions(path: Path) -> None:
    with Snapshot.open(path) as snapshot, pytest.raises(ModelMismatchError, match=r"24 token.*16 token"):
        snapshot.require(WordEncoder(24, 8).spec)


def test_plain_faiss_opens_the_sentence_index_and_the_quantizer(tmp_path: Path) -> None:
    passages = encoded([3, 0, 30, 7], 16, 8)
    with make_snapshot(tmp_path, passages) as snapshot:
        sentences = faiss.read_index(str(tmp_path / "snapshot/segments/000001/sentences.faiss"))
        quantizer = faiss.read_index(str(tmp_path / "snapshot/quantizers/000001/quantizer.faiss"))
        assert (quantizer.nlist, quantizer.d) == snapshot.segments[0].quantizer.centroids.shape
    sentences.nprobe = sentences.nlist
    assert sentences.search(passages.sentences, 1)[1][:, 0].tolist() == [0, 1, 2, 3]


def test_the_sentence_index_starts_no_threads_to_read_its_lists(path: Path) -> None:
    with Snapshot.open(path) as snapshot:
        for segment in snapshot.segments:
            assert faiss.downcast_InvertedLists(segment._sentence_index.invlists).prefetch_nthread == 0


def test_stored_vectors_are_the_float16_of_the_encoded(tmp_path: Path) -> None:
    passages = encoded([3, 0, 30, 7], 19)
    with make_snapshot(tmp_path, passages) as snapshot:
        for position in range(4):
            expected = passages.tokens_of(position).astype(np.float16).astype(np.float32)
            assert np.array_equal(snapshot.vectors_of(position), expected)


@pytest.mark.parametrize("name", ["nothing", "file", "directory"])
def test_what_has_no_manifest_is_no_snapshot(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        Snapshot.open(tmp_path / name)


def test_every_flipped_byte_is_found(path: Path) -> None:
    for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name != MANIFEST):
        data = bytearray(file.read_bytes())
        for at in (0, len(data) // 2, len(data) - 1):
            data[at] ^= 1
            file.write_bytes(data)
            with pytest.raises(SnapshotCorruptError, match=file.name):
                Snapshot.open(path, verify=True)
            data[at] ^= 1
        file.write_bytes(data)
    Snapshot.open(path, verify=True).close()


def test_missing_and_cut_files_are_found_without_hashing(path: Path) -> None:
    file = path / "segments/000001/cells.npy"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(SnapshotCorruptError, match=r"cells\.npy has \d+ bytes instead of \d+"):
        Snapshot.open(path)
    file.unlink()
    with pytest.raises(SnapshotCorruptError, match=r"cells\.npy is missing"):
        Snapshot.open(path)


@pytest.mark.parametrize("moment", ["find_damage", "PassageStore"])
def test_snapshot_that_is_replaced_while_it_is_opened_is_opened_anew(
    path: Path, tmp_path: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    (tmp_path / "other.jsonl").write_text('{"id": "new", "text": "another text"}\n')
    module = "drdecr.index.snapshot" if moment == "find_damage" else "drdecr.index.segment"
    original = getattr(importlib.import_module(module), moment)

    def replace_first(*args: object, **options: object) -> object:
        monkeypatch.setattr(f"{module}.{moment}", original)
        build(encoder, tmp_path / "other.jsonl", path, force=True)
        return original(*args, **options)

    monkeypatch.setattr(f"{module}.{moment}", replace_first)
    with Snapshot.open(path) as snapshot:
        assert len(snapshot) == 1
        assert snapshot.passage("new") is not None


def test_damaged_passage_file_is_named_when_it_is_read(path: Path) -> None:
    file = path / "segments/000001/passages.sqlite"
    file.write_bytes(b"\0" * file.stat().st_size)
    with Snapshot.open(path) as snapshot, pytest.raises(SnapshotCorruptError, match=r"passages\.sqlite"):
        snapshot.passage("kbd")


@pytest.mark.parametrize("name", ["cells", "codes", "offsets", "lists"])
def test_arrays_of_another_shape_than_the_manifest_says_are_found(path: Path, name: str) -> None:
    array = path / f"segments/000001/{name}.npy"
    data = np.load(array)
    size = array.stat().st_size
    with array.open("wb") as file:
        np.save(file, data[:-2])
        file.write(b"\0" * (size - file.tell()))
    with pytest.raises(SnapshotCorruptError, match=rf"{name}\.npy holds"):
        Snapshot.open(path)


def test_segment_whose_quantizer_is_not_listed_is_refused(path: Path) -> None:
    manifest = read_manifest(path)
    write_manifest(path, manifest.model_copy(update={"quantizers": []}))
    with pytest.raises(SnapshotError, match="names the quantiser quantizers/000001, which is not listed"):
        Snapshot.open(path)


def test_quantizer_of_another_size_than_the_manifest_says_is_found(path: Path) -> None:
    manifest = read_manifest(path)
    wrong = manifest.quantizers[0].model_copy(update={"lists": 7})
    write_manifest(path, manifest.model_copy(update={"quantizers": [wrong]}))
    with pytest.raises(SnapshotCorruptError, match=r"quantizer\.faiss holds .* the manifest says \(7, 16\)"):
        Snapshot.open(path)


@pytest.mark.parametrize("damage", [b"\x00", b"\x1f", b"\xff"])
def test_damaged_postings_are_told_and_crash_nothing(path: Path, encoder: WordEncoder, damage: bytes) -> None:
    """Opening reads no hashes: bytes that were flipped, or lost with the power, must not stop a server."""
    file = path / "segments/000001/postings.npy"
    file.write_bytes(file.read_bytes()[:128] + damage * (file.stat().st_size - 128))
    with Snapshot.open(path) as snapshot:
        finder = CandidateFinder(snapshot.segments[0])
        query = query_lanes(encoder.encode(["keyboard mail"], "query").vectors, None, 0.0)
        knobs = Knobs(nprobe=1, candidates=1, finalists=1, exact=False)
        with pytest.raises(SnapshotCorruptError, match="index verify"):
            finder.find(query, knobs, 1)
