"""Compaction: fewer segments and no tombstones, and every search finds what it found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from changing import ENCODER, exact_hits, passage_file, texts_of
from fabricated_vectors import WordEncoder, encoded, save_vectors

from drdecr.errors import ModelMismatchError, SnapshotCorruptError, SnapshotError, UsageError
from drdecr.index import EXACT, Snapshot
from drdecr.index.manifest import read_manifest, write_manifest
from indexer.build import build, build_from_vectors
from indexer.change import add, delete, rollback
from indexer.compact import compact

TEXTS = {f"p{i}": f"word{i} word{i + 1} all things" for i in range(12)}
QUERIES = ["word3 word4", "all", "things word11", "new kettle", "p3"]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot of two segments, both with tombstones; a text without words among the passages."""
    path = tmp_path / "snapshot"
    build(ENCODER, passage_file(tmp_path / "a.jsonl", TEXTS), path)
    add(path, ENCODER, passage_file(tmp_path / "b.jsonl", {"p3": "new kettle", "x": "...", "y": "a pot"}))
    add(path, ENCODER, passage_file(tmp_path / "c.jsonl", {"p3": "newer kettle", "z": "things"}))
    delete(path, ["p0", "y"])
    return path


def texts(snapshot: Path) -> dict[str, str]:
    return texts_of(snapshot, [*TEXTS, "x", "y", "z"])


def test_compaction_changes_no_result(snapshot: Path) -> None:
    hits, stored = exact_hits(snapshot, QUERIES), texts(snapshot)
    report = compact(snapshot)
    assert (report.passages, report.segments) == (13, 1)
    assert exact_hits(snapshot, QUERIES) == hits
    assert texts(snapshot) == stored
    with Snapshot.open(snapshot, verify=True) as opened:
        assert (len(opened), opened.positions) == (13, 13)
        query = ENCODER.encode(["kettle"], "query")
        position = opened.position("p3")
        assert position is not None
        match = opened.explain(query, position)[0]
        passage = opened.passage("p3")
        assert passage is not None and match.span is not None
        assert passage.content[slice(*match.span)] == "kettle" and passage.metadata == {"words": 2}


def test_what_nothing_needs_is_gone(snapshot: Path) -> None:
    compact(snapshot)
    names = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    assert names == {*read_manifest(snapshot).paths(), "manifest.json", "writer.lock"}
    with pytest.raises(SnapshotError, match="keeps no earlier generation"):
        rollback(snapshot)


def test_compacted_snapshot_needs_no_second_compaction(snapshot: Path) -> None:
    first = compact(snapshot)
    again = compact(snapshot)
    assert (again.version, again.generation) == (first.version, first.generation)


def test_generations_are_kept_on_demand(snapshot: Path) -> None:
    hits = exact_hits(snapshot, QUERIES)
    compact(snapshot, keep=1)
    rollback(snapshot)
    assert len(read_manifest(snapshot).segments) == 2
    assert exact_hits(snapshot, QUERIES) == hits


def test_compacted_snapshot_is_changed_again(snapshot: Path) -> None:
    compact(snapshot)
    add(snapshot, ENCODER, passage_file(snapshot.parent / "d.jsonl", {"p3": "the newest kettle"}))
    assert compact(snapshot).passages == 13
    assert texts_of(snapshot, ["p3"]) == {"p3": "the newest kettle"}


def test_snapshot_without_living_passages_is_compacted(snapshot: Path) -> None:
    delete(snapshot, texts(snapshot))
    assert compact(snapshot).passages == 0
    assert read_manifest(snapshot).passages == 0
    assert exact_hits(snapshot, ["all"]) == [[]]
    add(snapshot, ENCODER, passage_file(snapshot.parent / "d.jsonl", TEXTS))
    assert texts(snapshot) == TEXTS


def test_quantiser_is_trained_anew_on_demand(snapshot: Path) -> None:
    hits, stored = exact_hits(snapshot, QUERIES), texts(snapshot)
    before = read_manifest(snapshot).quantizers
    assert compact(snapshot, retrain=True).segments == 1
    (quantizer,) = read_manifest(snapshot).quantizers
    assert quantizer not in before and quantizer.tokens == read_manifest(snapshot).tokens
    assert exact_hits(snapshot, QUERIES) == hits
    assert texts(snapshot) == stored
    assert [path.name for path in (snapshot / "quantizers").iterdir()] == [Path(quantizer.directory).name]


def test_texts_encoded_again_give_what_a_new_build_gives(tmp_path: Path) -> None:
    """At 4 bits; what is only decoded and coded again has lost more than that."""
    texts = {f"q{i}": " ".join(f"word{(i * step) % 97}" for step in range(1, 9)) for i in range(300)}
    first, rest = dict(list(texts.items())[:30]), dict(list(texts.items())[30:])
    path, again, fresh = tmp_path / "grown", tmp_path / "again", tmp_path / "fresh"
    build(ENCODER, passage_file(tmp_path / "a.jsonl", first), path, bits=4)
    add(path, ENCODER, passage_file(tmp_path / "b.jsonl", rest))
    shutil.copytree(path, again)
    build(ENCODER, passage_file(tmp_path / "all.jsonl", texts), fresh, bits=4)
    compact(path, retrain=True)
    assert compact(again, retrain=True, encoder=ENCODER).segments == 1
    assert exact_hits(again, QUERIES) == exact_hits(fresh, QUERIES) != exact_hits(path, QUERIES)
    assert read_manifest(again).quantizers[0].codec.bits == 4


def test_more_bits_come_with_encoding_again(snapshot: Path) -> None:
    compact(snapshot, retrain=True, bits=2)
    rough, stored = exact_hits(snapshot, QUERIES), texts(snapshot)
    compact(snapshot, retrain=True, bits=16, encoder=ENCODER)
    found = exact_hits(snapshot, QUERIES)
    assert found != rough
    # A text of the query's one word is found with a score of 1 and the sentence vector's half.
    assert found[QUERIES.index("all")][0][1] <= 1.5
    assert texts(snapshot) == stored


def test_only_the_student_of_the_snapshot_encodes_again(snapshot: Path) -> None:
    with pytest.raises(ModelMismatchError):
        compact(snapshot, retrain=True, encoder=WordEncoder(16, 8, name="another"))
    with pytest.raises(UsageError, match="--student goes with --retrain"):
        compact(snapshot, encoder=ENCODER)


def test_vectors_without_texts_are_never_encoded_again(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    save_vectors(tmp_path / "v.npz", encoded([3, 4], 16, 8))
    build_from_vectors(tmp_path / "v.npz", path)
    before = read_manifest(path)
    manifest = before.model_copy(
        update={"student": before.student.model_copy(update={"fingerprint": ENCODER.spec.fingerprint})}
    )
    write_manifest(path, manifest)
    with pytest.raises(UsageError, match="came as vectors, without a text"):
        compact(path, retrain=True, encoder=WordEncoder(16, 8))
    assert read_manifest(path) == manifest


def test_unknown_bits_are_refused(snapshot: Path) -> None:
    with pytest.raises(UsageError, match=r"--bits must be one of .*, and goes with --retrain"):
        compact(snapshot, bits=16)
    with pytest.raises(UsageError, match="--bits must be one of"):
        compact(snapshot, bits=3, retrain=True)


def test_damage_is_not_copied(snapshot: Path) -> None:
    file = snapshot / "segments/000001/codes.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(SnapshotCorruptError, match=r"codes\.npy has other contents"):
        compact(snapshot)


def test_reader_keeps_the_files_that_compaction_removes(snapshot: Path) -> None:
    with Snapshot.open(snapshot) as old:
        compact(snapshot)
        assert not (snapshot / "segments/000001").exists()
        hits = old.search(ENCODER.encode(["word5 word6 all things"], "query"), 1, EXACT)[0]
        assert (hits[0].id, old.passages(["p5"])["p5"].text) == ("p5", TEXTS["p5"])


READER = """
import sys
from pathlib import Path
from changing import ENCODER
from drdecr.index import EXACT, Snapshot

path, query, seen = Path(sys.argv[1]), ENCODER.encode(["kettle"], "query"), []
while not (path.parent / "stop").exists():
    with Snapshot.open(path) as opened:
        hits = opened.search(query, 50, EXACT)[0]
        assert len(hits) == 12 and {"p3", "z"} <= {hit.id for hit in hits}, hits
        found = opened.passages(["p3", "z"])
    seen.append(found["p3"].text + "|" + found["z"].text)
    (path.parent / "reading").touch()
print("\\n".join(dict.fromkeys(seen)))
"""


def test_reader_that_opens_all_the_time_sees_whole_generations(snapshot: Path) -> None:
    """Every change rewrites `p3` and `z` together: no reader may see one of them old and the other new."""
    command = [sys.executable, "-c", READER, str(snapshot)]
    places = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": places}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as reader:
        while not (snapshot.parent / "reading").exists():
            assert reader.poll() is None
            time.sleep(0.01)
        try:
            for i in range(12):
                path = passage_file(snapshot.parent / "d.jsonl", {"p3": f"kettle {i}", "z": f"kettle {i}"})
                add(snapshot, ENCODER, path, keep=0)
                compact(snapshot, retrain=i % 4 == 0)
        finally:
            (snapshot.parent / "stop").touch()
            printed, failed = reader.communicate(timeout=150)
    assert reader.returncode == 0, failed
    first, *changed = (line.split("|") for line in printed.splitlines())
    assert first == ["newer kettle", "things"]
    assert len(changed) > 3
    assert all(one == other for one, other in changed)


def test_much_larger_addition_brings_its_own_quantiser(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    build(ENCODER, passage_file(tmp_path / "a.jsonl", {"one": "just two"}), path)
    add(path, ENCODER, passage_file(tmp_path / "b.jsonl", TEXTS))
    hits = exact_hits(path, QUERIES)
    first, second = read_manifest(path).quantizers
    assert (first.tokens, second.tokens) == (2, 48)
    assert compact(path).segments == 2
    assert compact(path, retrain=True).segments == 1
    assert exact_hits(path, QUERIES) == hits
