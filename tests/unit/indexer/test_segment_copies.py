"""Segments written from the codes of others decode to the same vectors, and FAISS reads what is exported."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from fabricated_vectors import encoded, make_snapshot

from drdecr.errors import InputError, UsageError
from drdecr.index import Snapshot
from indexer import export, segment_writer
from indexer.centroids import sentence_lists
from indexer.export import export_faiss
from indexer.segment_writer import copy_sentences, copy_tokens

LENGTHS = [3, 0, 30, 7, 1, 12, 0, 5]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return make_snapshot(tmp_path, encoded(LENGTHS, 16, 8))


@pytest.mark.parametrize("chunk", [4, 2**16])
def test_copied_passages_keep_their_codes(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(segment_writer, "_CHUNK_VECTORS", chunk)
    (segment,) = snapshot.segments
    parts = [(segment, np.array([2, 3, 6])), (segment, np.array([], np.int64)), (segment, np.array([0, 1, 7]))]
    out = tmp_path / "copy"
    out.mkdir()
    advanced: list[int] = []
    assert copy_tokens(out, parts, segment.quantizer, advanced.append) == sum(advanced) == 30 + 7 + 3 + 5
    assert copy_sentences(out, parts) == sentence_lists(6)
    offsets = np.load(out / "offsets.npy")
    for place, position in enumerate([2, 3, 6, 0, 1, 7]):
        rows = slice(offsets[place], offsets[place + 1])
        own = slice(segment.offsets[position], segment.offsets[position + 1])
        assert np.array_equal(np.load(out / "codes.npy")[rows], segment.codes[own])
        assert np.array_equal(np.load(out / "cells.npy")[rows], segment.cells[own])
        expected = segment.sentences_of(np.array([position]))[0]
        assert np.array_equal(np.load(out / "sentences.npy")[place], expected)


def test_copying_all_passages_gives_the_same_files(snapshot: Snapshot, tmp_path: Path) -> None:
    (segment,) = snapshot.segments
    out = tmp_path / "copy"
    out.mkdir()
    parts = [(segment, np.arange(len(segment)))]
    copy_tokens(out, parts, segment.quantizer, lambda _: None)
    copy_sentences(out, parts)
    written = {file.name: file.read_bytes() for file in out.iterdir()}
    original = snapshot.path / segment.record.directory
    assert written == {name: (original / name).read_bytes() for name in written}
    assert len(written) == 7


def test_codes_of_another_quantizer_are_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_snapshot(tmp_path / "other", encoded(LENGTHS, 16, 8, seed=1))
    with pytest.raises(UsageError, match="different quantisers"):
        copy_tokens(tmp_path, [(snapshot.segments[0], np.array([0]))], other.segments[0].quantizer, lambda _: None)


def test_exported_index_is_searched_by_plain_faiss(snapshot: Snapshot, tmp_path: Path) -> None:
    assert export_faiss(snapshot.path, tmp_path / "all.faiss") == sum(LENGTHS)
    index = faiss.read_index(str(tmp_path / "all.faiss"))
    index.nprobe = index.nlist
    vectors = encoded(LENGTHS, 16, 8).vectors
    scores, ids = index.search(vectors, 1)
    expected = [(position << 20) | token for position, length in enumerate(LENGTHS) for token in range(length)]
    assert ids[:, 0].tolist() == expected
    assert scores == pytest.approx(1, abs=1e-3)
    with pytest.raises(UsageError, match="exists already"):
        export_faiss(snapshot.path, tmp_path / "all.faiss")
    export_faiss(snapshot.path, tmp_path / "all.faiss", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.faiss", "snapshot", "vectors.npz"]


def test_passage_that_no_faiss_id_can_address_is_refused(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOKEN_BITS", 4)
    with pytest.raises(InputError, match="a passage has 30 token vectors"):
        export_faiss(snapshot.path, tmp_path / "all.faiss")
