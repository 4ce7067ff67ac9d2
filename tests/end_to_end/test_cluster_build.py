"""A build on two nodes gives what a build on one machine gives, and goes on after anything that stops it."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from drdecr.encoder.load import load_encoder
from drdecr.errors import InputError, SnapshotBusyError, SnapshotError, UsageError
from drdecr.index import Snapshot
from drdecr.index.backend import EXACT
from drdecr.index.part import SnapshotPart, fetch_part, read_version
from drdecr.index.place import open_place
from indexer.build import build
from indexer.cluster import build as cluster_build
from indexer.cluster.build import build_on_cluster
from indexer.cluster.plan import encoded_chunks, finished_segments
from indexer.damage import verify
from indexer.lock import writer_lock


@pytest.fixture(scope="module")
def passages_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 passages; the text of one holds what Unicode takes for the end of a line."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=5)) for _ in range(300)]
    path = tmp_path_factory.mktemp("passages") / "passages.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(500):
            text = " ".join(draw.choices(words, k=draw.randint(3, 30)))
            record = {"id": f"p{number}", "text": text, "metadata": {"group": number % 7}}
            if number == 3:
                record |= {"title": "Two", "text": "lines\u2028of text"}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="module")
def local(tiny_student: Path, passages_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same passages, built on this machine."""
    out = tmp_path_factory.mktemp("local") / "snapshot"
    build(load_encoder(tiny_student, threads=1), passages_file, out)
    return out


def build_here(cluster: Any, student: Path, passages: Path, out: str, **more: Any) -> Any:
    """Build in chunks of 64 with one encoder: each that starts takes seconds."""
    return build_on_cluster(cluster.address, student, passages, out, **{"chunk_passages": 64, "encoders": 1, **more})


def answers(snapshot: Snapshot, student: Path) -> list[list[tuple[str, float]]]:
    queries = load_encoder(student, threads=1).encode(["abc def", "lines of text", "pon mlk"], "query")
    return [[(hit.id, hit.score) for hit in hits] for hits in snapshot.search(queries, 500, EXACT)]


def test_one_segment_has_the_bytes_of_a_local_build(
    cluster: Any, tiny_student: Path, passages_file: Path, local: Path, tmp_path: Path
) -> None:
    report = build_here(cluster, tiny_student, passages_file, str(tmp_path / "out"), segments=1, chunk_passages=1024)
    assert report.version == Snapshot.open(local).version
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "quantizers", "segments"}


def test_a_reduced_build_has_the_bytes_of_a_local_one_and_is_another_plan(
    cluster: Any, tiny_student: Path, passages_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller: dict[str, Any] = {"bits": 8, "dims": 8, "pool": 1.5}
    alone = build(load_encoder(tiny_student, threads=1), passages_file, tmp_path / "alone", **smaller)
    together: dict[str, Any] = {"segments": 1, "chunk_passages": 1024}

    def stop(*_: Any, **__: Any) -> None:
        raise SnapshotError("stopped")

    with monkeypatch.context() as broken:
        broken.setattr(cluster_build, "_publish", stop)
        with pytest.raises(SnapshotError, match="stopped"):
            build_here(cluster, tiny_student, passages_file, str(tmp_path / "out"), **together, **smaller)
    with pytest.raises(UsageError, match="unfinished build of other dims, pool"):
        build_here(cluster, tiny_student, passages_file, str(tmp_path / "out"), **together, bits=8)
    report = build_here(cluster, tiny_student, passages_file, str(tmp_path / "out"), **together, **smaller)
    assert (report.version, report.resumed_chunks) == (alone.version, 1)
    with pytest.raises(UsageError, match="dims must be 1 to"):
        build_here(cluster, tiny_student, passages_file, str(tmp_path / "other"), dims=10_000)


def test_several_segments_hold_the_same_passages_with_the_same_scores(
    cluster: Any, tiny_student: Path, passages_file: Path, local: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = build_here(cluster, tiny_student, passages_file, str(out), segments=3, encoders=None)
    assert (report.segments, report.passages, report.resumed_chunks) == (3, 500, 0)
    assert verify(out).damage == []
    with Snapshot.open(out) as together, Snapshot.open(local) as alone:
        for found, expected in zip(answers(together, tiny_student), answers(alone, tiny_student), strict=True):
            # How many texts are encoded together moves their vectors by a rounding.
            assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=2e-2)
            assert {each for each, _ in found} == {each for each, _ in expected}
        assert together.passages(["p3"]) == alone.passages(["p3"])
        assert [together.position(f"p{number}") for number in range(500)] == list(range(500))


def test_a_stopped_build_goes_on_with_what_is_finished(
    cluster: Any, tiny_student: Path, passages_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stop(*_: Any, **__: Any) -> None:
        raise SnapshotError("stopped")

    with monkeypatch.context() as broken:
        broken.setattr(cluster_build, "_publish", stop)
        with pytest.raises(SnapshotError, match="stopped"):
            build_here(cluster, tiny_student, passages_file, str(out), segments=2)
    assert not out.exists()
    with pytest.raises(UsageError, match="unfinished build of other bits, segments"):
        build_here(cluster, tiny_student, passages_file, str(out), segments=3, bits=4)
    place = open_place(str(tmp_path / ".out.ray-build"))
    # As if a machine had died at work on a chunk and on a segment.
    tokens = encoded_chunks(place)[5]
    place.remove("building/segments")
    (tmp_path / ".out.ray-build" / f"building/vectors/000005-{tokens}.npz").unlink()
    report = build_here(cluster, tiny_student, passages_file, str(out), segments=2)
    assert (report.resumed_chunks, report.resumed_segments) == (7, 0)
    assert verify(out).damage == []
    fresh = build_here(cluster, tiny_student, passages_file, str(tmp_path / "fresh"), segments=2)
    assert fresh.version == report.version


def test_a_snapshot_is_built_in_an_object_store(
    cluster: Any, tiny_student: Path, passages_file: Path, tmp_path: Path, bucket: str
) -> None:
    store = f"{bucket}/snapshot"
    report = build_here(cluster, tiny_student, passages_file, store, segments=2)
    place = open_place(store)
    assert place.names("building") == set()
    assert finished_segments(place) == set()
    manifest = read_version(place, report.version)
    part = SnapshotPart(fetch_part(place, manifest, [1], tmp_path), manifest, [1], verify=True)
    assert part.passages(["p3", "p499"]).keys() == {"p499"}
    part.close()
    with pytest.raises(UsageError, match="holds a snapshot already"):
        build_here(cluster, tiny_student, passages_file, store, segments=2)


def test_a_bad_line_is_named_before_any_work(cluster: Any, tiny_student: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"bad.jsonl:2: .*second time"):
        build_here(cluster, tiny_student, bad, str(tmp_path / "out"))
    report = build_here(cluster, tiny_student, bad, str(tmp_path / "out"), skip_bad_lines=True)
    assert (report.passages, report.skipped_lines) == (1, 1)


def test_a_snapshot_that_is_replaced_cannot_change_meanwhile(
    cluster: Any,
    tiny_student: Path,
    passages_file: Path,
    local: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, left = tmp_path / "out", tmp_path / ".out.ray-build"
    shutil.copytree(local, out)
    # As a build leaves it that was killed once its snapshot was in the place of an older one.
    shutil.copytree(local, left)
    (left / "tuning.json").write_text("{}")
    with writer_lock(out, "add"), pytest.raises(SnapshotBusyError):
        build_here(cluster, tiny_student, passages_file, str(out), force=True)
    encode = cluster_build._encode

    def while_somebody_adds(*given: Any) -> None:
        with pytest.raises(SnapshotBusyError), writer_lock(out, "add"):
            pass
        encode(*given)

    monkeypatch.setattr(cluster_build, "_encode", while_somebody_adds)
    report = build_here(cluster, tiny_student, passages_file, str(out), force=True, segments=1, chunk_passages=1024)
    assert report.version == Snapshot.open(local).version
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in out.iterdir()} == {"manifest.json", "quantizers", "segments"}


def test_an_error_of_a_worker_is_told_as_it_was(
    cluster: Any, tiny_student: Path, passages_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cluster_build.DirectoryPlace, "location", property(lambda _: str(tmp_path / "elsewhere")), raising=True
    )
    with pytest.raises(SnapshotError, match=r"does not see .*elsewhere; give --out on a file system that all share"):
        build_here(cluster, tiny_student, passages_file, str(tmp_path / "out"))


def test_a_store_that_refuses_is_named(bucket: str) -> None:
    with pytest.raises(SnapshotError, match=r"s3://no-such-bucket/x/building/plan.json"):
        open_place("s3://no-such-bucket/x").read("building/plan.json")
