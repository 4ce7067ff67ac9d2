"""What `verify` and `info` say of a snapshot that was changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from changing import ENCODER, passage_file, texts_of

from drdecr.index.codec import record_of
from drdecr.index.manifest import read_manifest
from indexer.build import build
from indexer.change import add, delete, rollback
from indexer.compact import compact
from indexer.damage import damaged_files, verify
from indexer.drift import advise, drift_of
from indexer.inspect import describe


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Two segments, tombstones in the first, and two earlier generations."""
    path = tmp_path / "snapshot"
    build(ENCODER, passage_file(tmp_path / "a.jsonl", {f"p{i}": f"word{i} all" for i in range(9)}), path)
    add(path, ENCODER, passage_file(tmp_path / "b.jsonl", {"p3": "a kettle", "x": "a pot"}))
    delete(path, ["p1"])
    return path


def spoil(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_every_flipped_byte_is_found_after_changes(snapshot: Path) -> None:
    assert damaged_files(snapshot) == []
    files = [
        path for path in snapshot.rglob("*") if path.is_file() and path.name not in {"writer.lock", "manifest.json"}
    ]
    assert len(files) > 18
    for file in files:
        good = file.read_bytes()
        for at in (0, len(good) // 2, len(good) - 1):
            spoiled = bytearray(good)
            spoiled[at] ^= 1
            file.write_bytes(spoiled)
            (line,) = damaged_files(snapshot)
            assert str(file) in line
        file.write_bytes(good)
    assert damaged_files(snapshot) == []


@pytest.mark.parametrize(
    ("file", "meaning"),
    [
        ("segments/000002/codes.npy", "it holds token vectors of 2 passages"),
        ("segments/000001/passages.sqlite", "it holds ids, texts and metadata of 9 passages"),
        ("quantizers/000001/quantizer.faiss", "it holds centroids and codec of 11 passages"),
        ("tombstones/000003-000001.npy", "it says which 2 passages of segments/000001 were deleted"),
        ("tombstones/000002-000001.npy", "only an earlier generation needs it"),
        ("generations/000001.json", "only `drdecr index rollback` needs it"),
    ],
)
def test_damage_is_explained(snapshot: Path, file: str, meaning: str) -> None:
    spoil(snapshot / file)
    (line,) = damaged_files(snapshot)
    assert file in line and meaning in line


@pytest.mark.parametrize("missing", [True, False])
def test_generation_that_is_whole_is_named_and_can_be_gone_back_to(snapshot: Path, missing: bool) -> None:
    if missing:
        (snapshot / "tombstones/000003-000001.npy").unlink()
    else:
        spoil(snapshot / "tombstones/000003-000001.npy")
    verdict = verify(snapshot)
    assert verdict.whole_generation == 2
    rollback(snapshot, to=2)
    assert damaged_files(snapshot) == []
    assert texts_of(snapshot, ["p1", "p3"]) == {"p1": "word1 all", "p3": "a kettle"}


def test_no_generation_is_whole_when_all_share_the_damage(snapshot: Path) -> None:
    spoil(snapshot / "segments/000001/cells.npy")
    assert verify(snapshot).whole_generation is None


def test_info_counts_what_lives_and_what_is_deleted(snapshot: Path) -> None:
    facts = describe(snapshot)
    assert (facts["passages"], facts["deleted_passages"], facts["segments"]) == (9, 2, 2)
    assert (facts["generation"], facts["earlier_generations"]) == (3, "1, 2")
    assert facts["token_vectors"] == 7 * 2 + 2 + 2
    stored = {path: path.stat().st_size for path in snapshot.rglob("*") if path.is_file()}
    kept = sum(size for path, size in stored.items() if path.parent.name not in {"snapshot", "generations"})
    assert int(facts["size_bytes"]) + int(facts["earlier_bytes"]) == kept


def test_compaction_is_advised_where_much_is_deleted_or_in_many_segments(snapshot: Path) -> None:
    assert describe(snapshot)["advice"] == "none"
    delete(snapshot, ["p5", "p6"])
    assert describe(snapshot)["advice"] == "`drdecr index compact`: 2 segments, 36% of the passages deleted"
    compact(snapshot)
    assert describe(snapshot)["advice"] == "none"
    manifest = read_manifest(snapshot)
    trained = [manifest.quantizers[0].model_copy(update={"tokens": 99})]
    many = manifest.model_copy(update={"segments": manifest.segments * 9, "quantizers": trained})
    assert advise(many).startswith("`drdecr index compact`: 9 segments, 0%")


def test_training_anew_is_advised_where_other_words_are_added(snapshot: Path) -> None:
    """Each built word is a centroid, so its tokens have no distance; a made-up one stands for that of real tokens."""
    manifest = read_manifest(snapshot)
    (quantizer,) = manifest.quantizers
    first, second = manifest.segments
    assert first.residual == pytest.approx(0, abs=1e-4) and second.residual is not None and second.residual > 0.3
    trained = quantizer.model_copy(update={"residual": second.residual / 3, "tokens": 10_000})
    drifted = manifest.model_copy(update={"quantizers": [trained]})
    assert drift_of(drifted).drift == pytest.approx((14 * -1 + 4 * 2) / 18, abs=0.01)
    only_new = drifted.model_copy(update={"segments": [second]})
    assert drift_of(only_new).drift == pytest.approx(2, abs=0.01)
    assert advise(only_new).startswith("`drdecr index compact --retrain`, or a new build: tokens lie 200% farther")
    lossy = trained.model_copy(update={"codec": record_of(4, 16, unit=True)})
    rounded = only_new.model_copy(update={"quantizers": [lossy]})
    assert advise(rounded).startswith("`drdecr index compact --retrain --student STUDENT`, or a new build")
    small = manifest.model_copy(update={"quantizers": [quantizer.model_copy(update={"tokens": 3})]})
    assert "6.0 times as many as these were trained for" in advise(small)
