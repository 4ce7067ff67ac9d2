"""Builds of a data directory's index: what is encoded, what is kept, and what a killed attempt leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from changing import exact_hits
from fabricated_vectors import WordEncoder
from reindexing import TEXTS, stage

from drdecr.collections.directory import DataDirectory
from drdecr.collections.files import try_lock
from drdecr.collections.records import BuildRecord, Mode
from drdecr.collections.uploads import (
    UploadWriter,
    parse_delete,
    staged_uploads,
)
from drdecr.errors import SnapshotBusyError, SnapshotCorruptError, SnapshotError, UsageError
from drdecr.index import Snapshot
from drdecr.index.reduction import Reduction
from indexer.reindex import Task, build_next, publish, unfinished


def stage_deletion(directory: DataDirectory, *ids: str) -> None:
    with UploadWriter(directory, "docs", parse_delete) as writer:
        writer.feed("".join(json.dumps({"id": each}) + "\n" for each in ids).encode())
        writer.finish()


def run(directory: DataDirectory, encoder: WordEncoder, job: str, mode: Mode = "incremental") -> BuildRecord:
    task = Task(job, "docs", mode)
    assert build_next(directory, task, encoder)
    record = directory.build_record("docs", publish(directory, task))
    assert record is not None
    return record


def newest(directory: DataDirectory) -> Path:
    return directory.version_path("docs", directory.versions("docs")[-1])


def stored(directory: DataDirectory) -> dict[str, str]:
    """Return every living passage's text, failing on an id that is there twice."""
    found: dict[str, str] = {}
    with Snapshot.open(newest(directory), verify=True) as snapshot:
        for segment in snapshot.segments:
            living = [at for at in range(len(segment)) if segment.holds(at)]
            for passage in segment.store.read(living):
                assert passage.id not in found
                found[passage.id] = passage.text
    return found


def test_incremental_build_encodes_only_what_has_a_new_text(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    assert run(directory, encoder, "one").encoded == 40
    stage(directory, {**TEXTS, "p3": "another word", "new": "a kettle"})
    stage_deletion(directory, "p5", "nobody")
    encoder.calls.clear()
    record = run(directory, encoder, "two")
    assert (record.encoded, record.reused, record.deleted, record.mode) == (2, 0, 1, "incremental")
    assert sum(encoder.calls) == 2
    expected = {**TEXTS, "p3": "another word", "new": "a kettle"}
    del expected["p5"]
    assert stored(directory) == expected
    assert staged_uploads(directory, "docs") == []


def test_new_metadata_keep_the_vectors(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    before = exact_hits(newest(directory), ["word3 things", "all word20"])
    stage(directory, {"p3": TEXTS["p3"], "p20": TEXTS["p20"]}, colour="red")
    record = run(directory, encoder, "two")
    assert (record.encoded, record.reused) == (0, 2)
    after = exact_hits(newest(directory), ["word3 things", "all word20"])
    for old, new in zip(before, after, strict=True):
        assert dict(new) == pytest.approx(dict(old), abs=2e-3)
    with Snapshot.open(newest(directory)) as snapshot:
        found = snapshot.passage("p3")
        position = snapshot.position("p3")
        assert found is not None and found.metadata == {"colour": "red"}
        assert position is not None
        query = encoder.encode(["word3"], "query")
        assert snapshot.explain(query, position)[0].span == (0, 5)


def test_number_that_becomes_a_truth_is_new_metadata(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS, active=1, flags=[0, 1])
    run(directory, encoder, "one")
    stage(directory, {"p3": TEXTS["p3"]}, active=True, flags=[False, True])
    run(directory, encoder, "two")
    with Snapshot.open(newest(directory)) as snapshot:
        found = snapshot.passage("p3")
        assert found is not None
        assert json.dumps(found.metadata) == '{"active": true, "flags": [false, true]}'


def test_pooled_passage_without_words_takes_no_others_spans(tmp_path: Path, encoder: WordEncoder):
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs", pool=2.0)
    stage(directory, TEXTS | {"odd": "..."})
    run(directory, encoder, "one")
    stage(directory, {"odd": "..."}, colour="red")
    stage(directory, {"new": "alpha beta gamma delta"})
    run(directory, encoder, "two")
    with Snapshot.open(newest(directory)) as snapshot:
        odd, new = snapshot.position("odd"), snapshot.position("new")
        assert odd is not None and new is not None
        assert snapshot.explain(encoder.encode(["alpha"], "query"), odd) == []
        (match,) = snapshot.explain(encoder.encode(["gamma"], "query"), new)
        assert (11, 16) in (match.span, *match.also)


def test_later_operation_on_an_id_wins(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, {"a": "first", "b": "stays", "c": "goes"})
    stage_deletion(directory, "a", "c")
    stage(directory, {"a": "second"})
    run(directory, encoder, "one")
    assert stored(directory) == {"a": "second", "b": "stays"}


def test_full_build_of_the_same_student_encodes_nothing_again(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    stage(directory, {"p1": "other text"})
    stage_deletion(directory, "p2")
    run(directory, encoder, "two")
    before = exact_hits(newest(directory), ["word3 things"])
    encoder.calls.clear()
    record = run(directory, encoder, "three", "full")
    assert (record.encoded, record.reused, encoder.calls) == (0, 39, [])
    after = exact_hits(newest(directory), ["word3 things"])
    assert dict(after[0]) == pytest.approx(dict(before[0]), abs=2e-3)
    with Snapshot.open(newest(directory)) as snapshot:
        assert len(snapshot.segments) == 1 and snapshot.manifest.deleted == 0


@pytest.mark.parametrize("other_student", [False, True])
def test_full_build_counts_what_it_deletes(
    directory: DataDirectory, encoder: WordEncoder, other_student: bool
) -> None:
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    stage_deletion(directory, "p1", "p2")
    stage(directory, {"late": "comes later"})
    assert run(directory, encoder, "two").deleted == 2
    # In two segments; p2 is gone already, p4 comes back, p6 is replaced.
    stage_deletion(directory, "p2", "p3", "p4", "late", "nobody")
    stage(directory, {"p4": "again", "p6": "another"})
    record = run(directory, WordEncoder(24, 8, "others") if other_student else encoder, "three", "full")
    assert (record.mode, record.deleted) == ("full", 2)
    assert set(stored(directory)) == set(TEXTS) - {"p1", "p2", "p3"}


def test_other_student_encodes_everything_whatever_was_asked_for(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    other = WordEncoder(24, 8, "others")
    record = run(directory, other, "two")
    assert (record.mode, record.encoded, record.reused) == ("full", 40, 0)
    assert stored(directory) == TEXTS


def test_full_build_of_lossy_codes_encodes_them_again(tmp_path: Path, encoder: WordEncoder):
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs", bits=4)
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    assert run(directory, encoder, "two", "full").encoded == 40


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_builds_keep_the_dimensions_and_the_pooling_of_their_index(tmp_path: Path, encoder: WordEncoder, mode: Mode):
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs", dims=8, pool=2)
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    stage(directory, {"p3": TEXTS["p3"], "new": "kettle kettle kettle kettle"}, colour="red")
    record = run(directory, encoder, "two", mode)
    assert (record.encoded, record.reused) == (1, 1 if mode == "incremental" else 40)
    query = encoder.encode(["kettle"], "query")
    with Snapshot.open(newest(directory), verify=True) as snapshot:
        assert snapshot.manifest.reduction == Reduction(dims=8, pool=2)
        for each in ("p3", "p20", "new"):
            position = snapshot.position(each)
            assert position is not None and snapshot.vectors_of(position).shape == (2 if each != "new" else 1, 8)
        position = snapshot.position("new")
        assert position is not None
        match = snapshot.explain(query, position)[0]
        assert [match.span, *match.also] == [(0, 6), (7, 13), (14, 20), (21, 27)]


def test_index_of_more_dimensions_than_the_student_has_is_not_built(tmp_path: Path, encoder: WordEncoder):
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs", dims=17)
    stage(directory, TEXTS)
    with pytest.raises(UsageError, match="dims must be 1 to 16, the dimensions of words; got 17"):
        build_next(directory, Task("one", "docs", "incremental"), encoder)


def test_nothing_staged_is_nothing_to_build(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    assert not build_next(directory, Task("two", "docs", "incremental"), encoder)


def test_everything_deleted_and_filled_again(directory: DataDirectory, encoder: WordEncoder):
    run(directory, encoder, "empty")
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    stage_deletion(directory, *TEXTS)
    run(directory, encoder, "two")
    assert stored(directory) == {}
    run(directory, encoder, "three", "full")
    stage(directory, {"a": "back"})
    run(directory, encoder, "four")
    assert stored(directory) == {"a": "back"}


def test_old_version_is_untouched_and_shares_files(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    before = exact_hits(newest(directory), ["word3 things"])
    first = newest(directory)
    stage(directory, {"p1": "other text"})
    run(directory, encoder, "two")
    assert exact_hits(first, ["word3 things"]) == before
    shared = [path for path in newest(directory).rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert shared


def test_attempt_that_died_while_encoding_resumes(directory: DataDirectory, encoder: WordEncoder):
    class Dies(WordEncoder):
        def encode(self, texts, kind, *, progress=None):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().encode(texts, kind, progress=progress)

    many = {f"m{i}": f"text {i}" for i in range(1500)}
    stage(directory, many)
    dying = Dies(16, 8)
    with pytest.raises(KeyboardInterrupt):
        build_next(directory, Task("one", "docs", "incremental"), dying)
    assert sum(dying.calls) == 1024
    record = run(directory, encoder, "one")
    assert sum(encoder.calls) == 1500 - 1024
    assert record.encoded == 1500
    assert stored(directory) == many
    assert list(unfinished(directory)) == []


def test_job_that_died_after_publishing_publishes_nothing_more(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    stage(directory, {"later": "comes later"})
    assert run(directory, encoder, "one").job == "one"
    assert directory.versions("docs") == [1]
    assert staged_uploads(directory, "docs") == [2]


def test_upload_during_a_build_waits_for_the_next(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, {"a": "first"})
    task = Task("one", "docs", "incremental")
    assert build_next(directory, task, encoder)
    stage(directory, {"b": "second"})
    publish(directory, task)
    assert stored(directory) == {"a": "first"}
    run(directory, encoder, "two")
    assert stored(directory) == {"a": "first", "b": "second"}


def test_builds_of_one_index_do_not_overtake_each_other(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, {"a": "first"})
    lock = try_lock(directory.path("docs") / "build.lock", create=True)
    assert lock is not None
    with pytest.raises(SnapshotBusyError):
        build_next(directory, Task("one", "docs", "incremental"), encoder)
    import os

    os.close(lock)
    slow = Task("slow", "docs", "incremental")
    assert build_next(directory, slow, encoder)
    run(directory, encoder, "quick")
    with pytest.raises(SnapshotError, match="another version"):
        publish(directory, slow)


def test_cancelled_at_the_last_moment_publishes_nothing(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    task = Task("one", "docs", "incremental")
    assert build_next(directory, task, encoder)

    def cancelled() -> None:
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError):
        publish(directory, task, cancelled)
    assert directory.versions("docs") == []
    assert staged_uploads(directory, "docs") == [1]


def test_damage_is_not_written_again_for_another_student(directory: DataDirectory, encoder: WordEncoder):
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    file = max((newest(directory) / "segments").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SnapshotCorruptError):
        build_next(directory, Task("two", "docs", "incremental"), WordEncoder(24, 8, "others"))


def test_what_killed_processes_left_of_versions_and_indexes_is_swept(directory: DataDirectory, encoder: WordEncoder):
    left = [directory.path("docs") / "versions" / ".000009.left", directory.path("docs").parent / ".docs.left"]
    for path in left:
        (path / "segments").mkdir(parents=True)
    stage(directory, TEXTS)
    run(directory, encoder, "one")
    assert not left[0].exists()
    directory.delete_index("docs")
    assert not left[1].exists()
