"""Merging: the living passages of several snapshots in a new one."""

from __future__ import annotations

from pathlib import Path

import pytest
from changing import ENCODER, exact_hits, passage_file, texts_of
from fabricated_vectors import WordEncoder, encoded, save_vectors

from drdecr.errors import InputError, ModelMismatchError, SnapshotCorruptError, UsageError
from drdecr.index.manifest import read_manifest
from indexer.build import build, build_from_vectors
from indexer.change import add, delete
from indexer.compact import compact
from indexer.merge import merge

CATS = {f"cat{i}": f"a cat number {i} all" for i in range(10)}
DOGS = {f"dog{i}": f"a dog number {i} all" for i in range(7)}
QUERIES = ["cat number 3", "all", "dog 5"]


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    build(ENCODER, passage_file(tmp_path / "cats.jsonl", CATS), tmp_path / "cats")
    return tmp_path / "cats"


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    build(ENCODER, passage_file(tmp_path / "dogs.jsonl", DOGS), tmp_path / "dogs")
    return tmp_path / "dogs"


def fresh(home: Path, texts: dict[str, str]) -> Path:
    build(ENCODER, passage_file(home / "fresh.jsonl", texts), home / "fresh", force=True)
    return home / "fresh"


def test_merged_snapshot_answers_like_one_built_of_all(cats: Path, dogs: Path, tmp_path: Path) -> None:
    delete(cats, ["cat4"])
    report = merge(tmp_path / "all", [cats, dogs])
    assert (report.passages, report.replaced, report.segments) == (16, 0, 2)
    wanted = {**CATS, **DOGS}
    del wanted["cat4"]
    assert texts_of(tmp_path / "all", [*CATS, *DOGS]) == wanted
    assert exact_hits(tmp_path / "all", QUERIES) == exact_hits(fresh(tmp_path, wanted), QUERIES)
    compact(tmp_path / "all", retrain=True)
    assert exact_hits(tmp_path / "all", QUERIES) == exact_hits(tmp_path / "fresh", QUERIES)
    assert texts_of(cats, ["cat1"]) and texts_of(dogs, ["dog1"])


def test_snapshots_of_one_quantiser_become_one_segment(cats: Path, tmp_path: Path) -> None:
    build(ENCODER, passage_file(tmp_path / "again.jsonl", CATS), tmp_path / "twin")
    delete(tmp_path / "twin", CATS)
    add(tmp_path / "twin", ENCODER, passage_file(tmp_path / "dogs.jsonl", DOGS))
    report = merge(tmp_path / "all", [cats, tmp_path / "twin"])
    assert report.segments == 1 == len(read_manifest(tmp_path / "all").quantizers)
    wanted = {**CATS, **DOGS}
    assert exact_hits(tmp_path / "all", QUERIES) == exact_hits(fresh(tmp_path, wanted), QUERIES)


def test_id_of_two_snapshots_is_an_error_or_the_last_wins(cats: Path, dogs: Path, tmp_path: Path) -> None:
    add(dogs, ENCODER, passage_file(tmp_path / "more.jsonl", {"cat3": "a dog called cat"}))
    with pytest.raises(InputError, match="several of the snapshots hold the ids 'cat3'; --on-duplicate last"):
        merge(tmp_path / "all", [cats, dogs])
    assert not (tmp_path / "all").exists()
    report = merge(tmp_path / "all", [cats, dogs], on_duplicate="last")
    assert (report.passages, report.replaced) == (17, 1)
    assert texts_of(tmp_path / "all", ["cat3"]) == {"cat3": "a dog called cat"}
    merge(tmp_path / "all", [dogs, cats], on_duplicate="last", force=True)
    assert texts_of(tmp_path / "all", ["cat3"]) == {"cat3": CATS["cat3"]}


def test_deleted_passage_is_no_duplicate(cats: Path, dogs: Path, tmp_path: Path) -> None:
    add(dogs, ENCODER, passage_file(tmp_path / "more.jsonl", {"cat3": "a dog called cat"}))
    delete(cats, ["cat3"])
    assert merge(tmp_path / "all", [cats, dogs]).passages == 17


def test_snapshots_without_passages_are_merged(cats: Path, dogs: Path, tmp_path: Path) -> None:
    delete(cats, CATS)
    delete(dogs, DOGS)
    assert merge(tmp_path / "all", [cats, dogs]).passages == 0
    assert exact_hits(tmp_path / "all", ["all"]) == [[]]


def test_other_students_are_refused(cats: Path, tmp_path: Path) -> None:
    twin = WordEncoder(16, 8, name="twin")
    build(twin, passage_file(tmp_path / "dogs.jsonl", DOGS), tmp_path / "dogs")
    with pytest.raises(ModelMismatchError) as caught:
        merge(tmp_path / "all", [cats, tmp_path / "dogs"])
    assert twin.spec.fingerprint in str(caught.value) and ENCODER.spec.fingerprint in str(caught.value)
    vectors = save_vectors(tmp_path / "v.npz", encoded([3], 16, 8))
    build_from_vectors(vectors, tmp_path / "unknown", sentence_weight=0.5)
    with pytest.raises(ModelMismatchError, match="fingerprint unknown"):
        merge(tmp_path / "all", [tmp_path / "unknown", cats])
    build_from_vectors(vectors, tmp_path / "heavy", sentence_weight=2)
    with pytest.raises(ModelMismatchError, match=r"sentence weight 2\.0"):
        merge(tmp_path / "all", [tmp_path / "unknown", tmp_path / "heavy"])


def test_damage_is_not_copied(cats: Path, dogs: Path, tmp_path: Path) -> None:
    file = dogs / "quantizers/000001/quantizer.faiss"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(SnapshotCorruptError, match=r"quantizer\.faiss has other contents"):
        merge(tmp_path / "all", [cats, dogs])


def test_one_snapshot_alone_is_not_merged(cats: Path, tmp_path: Path) -> None:
    for given in ([cats], [cats, cats], []):
        with pytest.raises(UsageError, match="two snapshots or more"):
            merge(tmp_path / "all", given)
