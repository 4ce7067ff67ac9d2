"""Adding, replacing, deleting and taking back, in a snapshot that readers may have open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from changing import ENCODER, exact_hits, passage_file, texts_of
from fabricated_vectors import WordEncoder, encoded, save_vectors

from drdecr.errors import (
    InputError,
    ModelMismatchError,
    SnapshotBusyError,
    SnapshotCorruptError,
    SnapshotError,
    UsageError,
)
from drdecr.index import EXACT, SearchParams, Snapshot
from drdecr.index.manifest import read_manifest
from indexer.build import build, build_from_vectors
from indexer.change import ChangeReport, add, add_vectors, delete, rollback
from indexer.compact import compact
from indexer.drift import drift_of
from indexer.generations import changed_snapshot
from indexer.lock import writer_lock

TEXTS = {f"p{i}": f"word{i} word{i + 1} all things" for i in range(12)}
QUERIES = ["word3 word4", "all", "things word11", "new kettle"]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    build(ENCODER, passage_file(tmp_path / "passages.jsonl", TEXTS), tmp_path / "snapshot")
    return tmp_path / "snapshot"


def added(snapshot: Path, texts: dict[str, str]) -> ChangeReport:
    return add(snapshot, ENCODER, passage_file(snapshot.parent / "added.jsonl", texts))


def fresh(snapshot: Path, texts: dict[str, str]) -> Path:
    """Build the same passages from nothing."""
    out = snapshot.parent / "fresh"
    build(ENCODER, passage_file(snapshot.parent / "fresh.jsonl", texts), out, force=True)
    return out


def test_added_passages_are_found_with_their_text_spans_and_metadata(snapshot: Path) -> None:
    report = added(snapshot, {"kettle": "a new kettle", "empty": "..."})
    assert (report.added, report.replaced, report.without_tokens, report.passages) == (2, 0, 1, 14)
    assert (report.generation, report.segments) == (2, 2)
    with Snapshot.open(snapshot, verify=True) as opened:
        assert opened.version == report.version
        query = ENCODER.encode(["a new kettle"], "query")
        hit = opened.search(query, 1, EXACT)[0][0]
        assert (hit.id, hit.position) == ("kettle", 12)
        passage = opened.passage("kettle")
        assert passage is not None and passage.metadata == {"words": 3}
        match = opened.explain(query, hit.position)[2]
        assert match.span is not None and passage.content[slice(*match.span)] == "kettle"


@pytest.mark.parametrize("odd", ["...", None])
def test_passage_without_spans_is_merged_with_others_again_and_again(snapshot: Path, odd: str | None) -> None:
    """A passage without words has no spans, nor has one that came as vectors without."""
    if odd is None:
        vectors = replace(ENCODER.encode(["vector one", "vector two"], "passage"), spans=np.zeros((0, 2), np.int32))
        add_vectors(snapshot, save_vectors(snapshot.parent / "v.npz", vectors, ids=np.array(["v0", "v1"])))
    else:
        added(snapshot, {"odd": odd})
    for turn in range(4):
        added(snapshot, {f"n{turn}": f"number{turn} of kettles", f"m{turn}": "more things"})
    delete(snapshot, ["p0"])
    compact(snapshot)
    compact(snapshot, retrain=True)
    with Snapshot.open(snapshot, verify=True) as opened:
        assert len(opened) == 12 - 1 + 8 + (2 if odd is None else 1)
        for turn in range(4):
            position = opened.position(f"n{turn}")
            assert position is not None
            (match,) = opened.explain(ENCODER.encode([f"number{turn}"], "query"), position)
            assert match.span == (0, len(f"number{turn}"))


def test_changed_snapshot_answers_like_a_fresh_one(snapshot: Path) -> None:
    wanted = dict(TEXTS)
    added(snapshot, {"x": "new kettle all", "p3": "kettle instead of word3"})
    delete(snapshot, ["p4", "p5"])
    added(snapshot, {"p4": "word4 came back", "x": "a newer kettle"})
    wanted |= {"p3": "kettle instead of word3", "p4": "word4 came back", "x": "a newer kettle"}
    del wanted["p5"]
    assert exact_hits(snapshot, QUERIES) == exact_hits(fresh(snapshot, wanted), QUERIES)
    assert texts_of(snapshot, [*TEXTS, "x"]) == wanted
    with Snapshot.open(snapshot) as opened:
        assert len(opened) == len(wanted)
        assert opened.positions > len(wanted)


def test_replaced_passage_is_never_found_by_its_old_words(snapshot: Path) -> None:
    report = added(snapshot, {"p3": "kettle"})
    assert (report.added, report.replaced, report.passages) == (1, 1, 12)
    with Snapshot.open(snapshot) as opened:
        best = opened.search(ENCODER.encode([TEXTS["p3"], "kettle"], "query"), 1, EXACT)
        assert best[0][0].score < 5.9 and (best[1][0].id, best[1][0].score) == ("p3", pytest.approx(1.5, abs=1e-2))
        assert opened.position("p3") == 12
        with pytest.raises(UsageError, match="no passage at position 3"):
            opened.explain(ENCODER.encode(["word3"], "query"), 3)


@pytest.mark.parametrize("params", [EXACT, SearchParams(), SearchParams(nprobe=1, candidates=1)])
def test_deleted_passage_is_never_returned(snapshot: Path, params: SearchParams) -> None:
    report = delete(snapshot, ["p3", "p11", "p3"])
    assert (report.deleted, report.missing, report.passages) == (2, [], 10)
    with Snapshot.open(snapshot, verify=True) as opened:
        assert len(opened) == 10
        assert opened.passage("p3") is None and opened.position("p11") is None
        for query in ("word3 word4", "word11", "all things"):
            hits = opened.search(ENCODER.encode([query], "query"), 12, params)[0]
            assert len(hits) == 10
            assert not {"p3", "p11"} & {hit.id for hit in hits}


def test_filter_and_tombstones_hold_together(snapshot: Path) -> None:
    delete(snapshot, ["p3"])
    added(snapshot, {"x": "word3 again"})
    with Snapshot.open(snapshot) as opened:
        allowed = np.zeros(opened.positions, np.bool_)
        allowed[[2, 3, 12]] = True
        hits = opened.search(ENCODER.encode(["word3"], "query"), 5, EXACT, allowed=allowed)[0]
        assert {hit.id for hit in hits} == {"p2", "x"}


def test_add_then_delete_is_the_identity(snapshot: Path) -> None:
    before = exact_hits(snapshot, QUERIES)
    added(snapshot, {"x": "all new kettle", "y": "word3 twice word3"})
    assert exact_hits(snapshot, QUERIES) != before
    report = delete(snapshot, ["x", "y"])
    assert report.segments == 1
    assert exact_hits(snapshot, QUERIES) == before
    assert read_manifest(snapshot).passages == 12


def test_every_passage_can_be_deleted_and_others_added(snapshot: Path) -> None:
    report = delete(snapshot, TEXTS)
    assert report.passages == 0
    with Snapshot.open(snapshot, verify=True) as opened:
        assert opened.search(ENCODER.encode(["all"], "query"), 5) == [[]]
    added(snapshot, {"x": "all new"})
    assert [hit[0] for hit in exact_hits(snapshot, ["all"])[0]] == ["x"]


def test_empty_snapshot_takes_passages(tmp_path: Path) -> None:
    build(ENCODER, passage_file(tmp_path / "none.jsonl", {}), tmp_path / "snapshot")
    added(tmp_path / "snapshot", TEXTS)
    assert exact_hits(tmp_path / "snapshot", QUERIES) == exact_hits(fresh(tmp_path / "snapshot", TEXTS), QUERIES)


def test_nothing_added_is_no_new_generation(snapshot: Path) -> None:
    before = read_manifest(snapshot)
    report = added(snapshot, {})
    assert (report.version, report.generation, report.added) == (before.version, 1, 0)
    assert [path.name for path in (snapshot / "segments").iterdir()] == ["000001"]
    assert delete(snapshot, []).generation == 1


def test_unknown_ids_are_named_and_nothing_is_deleted(snapshot: Path) -> None:
    unknown = [f"x{i}" for i in range(12)]
    with pytest.raises(InputError, match=r"holds no passage 'x0', .*'x9' and 2 more; nothing was deleted"):
        delete(snapshot, ["p1", *unknown])
    assert read_manifest(snapshot).generation == 1
    report = delete(snapshot, ["p1", *unknown], missing_ok=True)
    assert (report.deleted, report.missing) == (1, unknown)
    with pytest.raises(InputError, match="holds no passage 'p1'"):
        delete(snapshot, ["p1"])


def test_vectors_are_added_without_texts(tmp_path: Path) -> None:
    build_from_vectors(save_vectors(tmp_path / "v.npz", encoded([3, 4, 5], 16)), tmp_path / "snapshot")
    report = add_vectors(tmp_path / "snapshot", save_vectors(tmp_path / "v2.npz", encoded([2, 6], 16, seed=1)))
    assert (report.added, report.replaced, report.passages) == (2, 2, 3)
    with pytest.raises(ModelMismatchError, match=r"12 token.*16 token"):
        add_vectors(tmp_path / "snapshot", save_vectors(tmp_path / "v3.npz", encoded([2], 12)))


def test_another_student_is_refused_with_both_fingerprints(snapshot: Path, tmp_path: Path) -> None:
    twin = WordEncoder(16, 8, name="twin")
    with pytest.raises(ModelMismatchError) as caught:
        add(snapshot, twin, passage_file(tmp_path / "more.jsonl", {"x": "text"}))
    assert twin.spec.fingerprint in str(caught.value) and ENCODER.spec.fingerprint in str(caught.value)
    assert twin.calls == []
    assert read_manifest(snapshot).generation == 1


def test_bad_line_stops_an_add_or_is_skipped(snapshot: Path, tmp_path: Path) -> None:
    path = passage_file(tmp_path / "more.jsonl", {"x": "new kettle"})
    path.write_text(path.read_text() + "broken\n" + '{"id": "x", "text": "twice"}\n')
    with pytest.raises(InputError, match=r"more\.jsonl:2:"):
        add(snapshot, ENCODER, path)
    assert [each.name for each in (snapshot / "segments").iterdir()] == ["000001"]
    report = add(snapshot, ENCODER, path, skip_bad_lines=True)
    assert (report.added, report.skipped_lines) == (1, 2)


def test_reader_keeps_its_generation_while_the_snapshot_changes(snapshot: Path) -> None:
    with Snapshot.open(snapshot) as old:
        added(snapshot, {"p3": "kettle"})
        delete(snapshot, ["p0"])
        for _ in range(5):
            added(snapshot, {"x": "again"})
        assert old.passages(["p3", "p0"])["p3"].text == TEXTS["p3"]
        hits = old.search(ENCODER.encode(["word0", "word3 word4"], "query"), 1, EXACT)
        assert [found[0].id for found in hits] == ["p0", "p3"]
        assert len(old) == 12


def test_rollback_takes_back_the_last_change_and_can_be_taken_back(snapshot: Path) -> None:
    before = exact_hits(snapshot, QUERIES)
    added(snapshot, {"p3": "kettle"})
    after = exact_hits(snapshot, QUERIES)
    report = rollback(snapshot)
    assert (report.generation, report.passages) == (3, 12)
    assert exact_hits(snapshot, QUERIES) == before
    rollback(snapshot)
    assert exact_hits(snapshot, QUERIES) == after
    rollback(snapshot, to=1)
    assert exact_hits(snapshot, QUERIES) == before


def test_rollback_names_what_is_kept(snapshot: Path) -> None:
    with pytest.raises(SnapshotError, match="keeps no earlier generation to go back to; kept are: none"):
        rollback(snapshot)
    for text in ("one", "two", "three", "four", "five"):
        added(snapshot, {"x": text})
    with pytest.raises(SnapshotError, match="keeps no generation 2 to go back to; kept are: 3, 4, 5"):
        rollback(snapshot, to=2)
    rollback(snapshot, to=3)
    assert texts_of(snapshot, ["x"]) == {"x": "two"}


def test_rollback_to_a_damaged_generation_is_refused(snapshot: Path) -> None:
    delete(snapshot, ["p3"])
    added(snapshot, {"x": "new"})
    delete(snapshot, ["p4"])
    (file,) = (snapshot / "tombstones").glob("000002-*")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(SnapshotCorruptError, match=r"generation 3 of .* is damaged: .*000002-000001"):
        rollback(snapshot)


def test_files_that_no_kept_generation_needs_go(snapshot: Path) -> None:
    for text in ("one", "two", "three"):
        add(snapshot, ENCODER, passage_file(snapshot.parent / "a.jsonl", {"x": text}), keep=0)
    names = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    assert names == {*read_manifest(snapshot).paths(), "manifest.json", "writer.lock"}


def test_many_small_additions_leave_few_segments(snapshot: Path) -> None:
    for i in range(20):
        report = added(snapshot, {f"x{i}": f"word{i} kettle"})
        assert report.segments <= 4
    assert texts_of(snapshot, [f"x{i}" for i in range(20)]) == {f"x{i}": f"word{i} kettle" for i in range(20)}
    everything = TEXTS | {f"x{i}": f"word{i} kettle" for i in range(20)}
    assert exact_hits(snapshot, QUERIES) == exact_hits(fresh(snapshot, everything), QUERIES)


def test_quantiser_grows_with_what_is_added(snapshot: Path) -> None:
    everything = dict(TEXTS)
    for i in range(12):
        more = {f"x{i}-{j}": f"word{i} other{j}" for j in range(5)}
        added(snapshot, more)
        everything |= more
        assert drift_of(read_manifest(snapshot)).growth <= 2.5
    assert read_manifest(snapshot).quantizers[0].directory != "quantizers/000001"
    assert exact_hits(snapshot, QUERIES) == exact_hits(fresh(snapshot, everything), QUERIES)


def test_damage_is_not_merged_into_a_new_segment(snapshot: Path) -> None:
    added(snapshot, {"x": "new kettle"})
    file = snapshot / "segments/000002/cells.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(SnapshotCorruptError, match=r"cells\.npy has other contents"):
        added(snapshot, {"y": "new pot"})


def test_foreign_files_in_a_snapshot_stay(snapshot: Path) -> None:
    (snapshot / "notes.txt").write_text("mine")
    (snapshot / "segments/link").symlink_to(snapshot.parent)
    delete(snapshot, ["p0"])
    assert (snapshot / "notes.txt").exists() and (snapshot / "segments/link").exists()


def test_second_writer_is_told_who_is_first(snapshot: Path) -> None:
    with (
        writer_lock(snapshot, "add"),
        pytest.raises(SnapshotBusyError, match=r"is being changed by process \d+ on \S+ \(add, since 20"),
    ):
        delete(snapshot, ["p0"])
    with writer_lock(snapshot, "add"), pytest.raises(SnapshotBusyError):
        build(ENCODER, passage_file(snapshot.parent / "b.jsonl", {"x": "y"}), snapshot, force=True)
    assert delete(snapshot, ["p0"]).deleted == 1


def test_stale_lock_file_blocks_nobody(snapshot: Path) -> None:
    (snapshot / "writer.lock").write_text('{"pid": 1, "host": "elsewhere", "doing": "add", "since": "yesterday"}')
    assert delete(snapshot, ["p0"]).deleted == 1


def test_damaged_snapshot_is_not_changed(snapshot: Path) -> None:
    delete(snapshot, ["p0"])
    (file,) = (snapshot / "tombstones").iterdir()
    file.unlink()
    with pytest.raises(SnapshotCorruptError, match=r"000002-000001\.npy is missing; restore"):
        delete(snapshot, ["p1"])


def test_what_is_no_snapshot_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        delete(tmp_path, ["p0"])
    assert not list(tmp_path.iterdir())


def test_tombstones_that_do_not_fit_the_manifest_are_found(snapshot: Path) -> None:
    delete(snapshot, ["p0", "p1"])
    (file,) = (snapshot / "tombstones").iterdir()
    good = file.read_bytes()
    for values in ([0, 12], [1, 0], [0, 0]):
        file.write_bytes(good[:-8] + np.array(values, "<u4").tobytes())
        with pytest.raises(SnapshotCorruptError, match="does not hold the deleted positions"):
            Snapshot.open(snapshot)
        with pytest.raises(SnapshotCorruptError, match="SHA-256 differs"):
            Snapshot.open(snapshot, verify=True)


def test_failure_in_a_change_leaves_the_old_generation_and_no_files(snapshot: Path) -> None:
    before = {path: path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt), changed_snapshot(snapshot, "test") as draft:
        (snapshot / draft.new_segment() / "half").write_text("x")
        draft.bury(0, [1])
        raise KeyboardInterrupt
    after = {path: path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}
    assert {path: data for path, data in after.items() if path.name != "writer.lock"} == before
