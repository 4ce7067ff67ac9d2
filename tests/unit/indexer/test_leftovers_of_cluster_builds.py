"""What a build on a cluster leaves when it is killed, and what nodes take for its student; without a cluster."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from drdecr.encoder.load import load_encoder
from drdecr.errors import SnapshotBusyError, UsageError
from drdecr.index import Snapshot
from drdecr.index.manifest import MANIFEST
from drdecr.index.place import Place, open_place
from drdecr.index.reduction import Reduction
from indexer.build import build
from indexer.cluster import build as cluster_build
from indexer.cluster.build import _plan, _publish, _workplace, build_on_cluster
from indexer.cluster.plan import BUILDING, Plan, wish
from indexer.cluster.work import ChunkEncoder, build_segment, train
from indexer.lock import writer_lock
from indexer.progress import SILENT

SNAPSHOT = {MANIFEST, "quantizers", "segments"}


def write_passages(path: Path, word: str) -> Path:
    path.write_text("".join(json.dumps({"id": f"{word}{n}", "text": f"{word} {n} abc"}) + "\n" for n in range(40)))
    return path


def plan_of(place: Place, student: Path, passages: Path) -> Plan:
    spec = load_encoder(student, threads=1).spec
    return _plan(place, student, passages, wish(passages, spec, 16, Reduction(), 1, 64, False), SILENT)


def work_through(place: Place, plan: Plan) -> None:
    """Do here what nodes do."""
    encoder = ChunkEncoder(place.location, gpu=False)
    for chunk in range(plan.chunks):
        encoder.encode(chunk)
    quantizer = train(place.location)
    for segment in range(plan.segments):
        build_segment(place.location, quantizer, segment)


def build_alone(student: Path, passages: Path, out: str) -> None:
    place = _workplace(out, force=True)
    plan = plan_of(place, student, passages)
    work_through(place, plan)
    _publish(place, plan, out, force=True)


def names(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


@pytest.fixture
def old(tiny_student: Path, tmp_path: Path) -> Path:
    """A snapshot that was tuned and changed since it was built."""
    out = tmp_path / "out"
    build(load_encoder(tiny_student, threads=1), write_passages(tmp_path / "old.jsonl", "old"), out)
    (out / "tuning.json").write_text("{}")
    for name in ("generations", "tombstones"):
        (out / name).mkdir()
    return out


@contextmanager
def killed_at(call: int) -> Iterator[None]:
    """Die at the first, second … thing that is deleted, counted from here."""
    remove, calls = shutil.rmtree, count(1)

    def rmtree(*given: Any, **more: Any) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt
        remove(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_build.shutil, "rmtree", rmtree)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize("call", [1, 2])
def test_a_build_that_is_killed_after_its_exchange_leaves_nothing_to_the_next(
    tiny_student: Path, old: Path, tmp_path: Path, call: int
) -> None:
    new = write_passages(tmp_path / "new.jsonl", "new")
    place = _workplace(str(old), force=True)
    plan = plan_of(place, tiny_student, new)
    work_through(place, plan)
    with killed_at(call):
        _publish(place, plan, str(old), force=True)
    with Snapshot.open(old) as snapshot:
        assert "new0" in snapshot.passages(["new0"])
    assert BUILDING in names(old)
    build_alone(tiny_student, write_passages(tmp_path / "newer.jsonl", "newer"), str(old))
    assert names(old) == SNAPSHOT
    assert ".out.ray-build" not in names(tmp_path)


def test_what_a_replaced_snapshot_held_of_its_own_build_is_not_taken_up(
    tiny_student: Path, old: Path, tmp_path: Path
) -> None:
    """Two kills: one leaves `building/` in the snapshot, the next leaves that snapshot where builds work."""
    first = write_passages(tmp_path / "first.jsonl", "first")
    plan_of(open_place(str(tmp_path / ".first")), tiny_student, first)
    shutil.move(tmp_path / ".first" / BUILDING, old / BUILDING)
    new = write_passages(tmp_path / "new.jsonl", "new")
    place = _workplace(str(old), force=True)
    plan = plan_of(place, tiny_student, new)
    work_through(place, plan)
    with killed_at(1):
        _publish(place, plan, str(old), force=True)
    build_alone(tiny_student, first, str(old))
    assert names(old) == SNAPSHOT


def test_a_rerun_removes_what_is_left_in_a_finished_snapshot_and_refuses(tiny_student: Path, old: Path) -> None:
    (old / BUILDING / "vectors").mkdir(parents=True)
    before = names(old)
    with writer_lock(old, "add"), pytest.raises(UsageError, match="exists already"):
        build_on_cluster("none", tiny_student, old / "none", str(old))
    assert BUILDING in names(old)
    with pytest.raises(UsageError, match="exists already"):
        build_on_cluster("none", tiny_student, old / "none", str(old))
    assert before - names(old) == {BUILDING}


def test_a_rerun_removes_what_is_left_below_a_url_and_refuses(tiny_student: Path, old: Path) -> None:
    (old / BUILDING / "vectors").mkdir(parents=True)
    (old / BUILDING / "vectors" / "000000-1.npz").write_text("")
    before = names(old)
    with pytest.raises(UsageError, match="holds a snapshot already"):
        build_on_cluster("none", tiny_student, old / "none", f"file://{old}")
    assert before - names(old) == {BUILDING}


def test_a_snapshot_is_held_before_anything_of_its_build(
    tiny_student: Path, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class JoinedError(Exception):
        pass

    def join(address: str) -> None:
        with pytest.raises(SnapshotBusyError, match="replace"), writer_lock(old, "add"):
            pass
        raise JoinedError

    monkeypatch.setattr(cluster_build, "join_cluster", join)
    with pytest.raises(JoinedError):
        build_on_cluster("none", tiny_student, tmp_path / "old.jsonl", str(old), force=True)
    with writer_lock(old, "add"), pytest.raises(SnapshotBusyError, match="add"):
        build_on_cluster("none", tiny_student, tmp_path / "old.jsonl", str(old), force=True)


def test_a_node_keeps_one_copy_of_a_student_and_another_of_its_next_export(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("DRDECR_CACHE", str(cache))

    def load(student: Path, word: str) -> None:
        place = open_place(f"memory://{tmp_path.name}/{word}")
        plan_of(place, student, write_passages(tmp_path / f"{word}.jsonl", word))
        ChunkEncoder(place.location, gpu=False)

    load(tiny_student, "one")
    load(tiny_student, "two")
    (kept,) = cache.iterdir()
    assert kept.name.startswith("student-")
    again = tmp_path / "again"
    shutil.copytree(tiny_student, again)
    record = again / "onnx" / "encoder.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "quality": {"fp32": {"largest_difference": 0}}}))
    assert load_encoder(again).spec == load_encoder(tiny_student).spec
    load(again, "three")
    (other,) = set(cache.iterdir()) - {kept}
    assert (other / "onnx" / "encoder.json").read_bytes() == record.read_bytes()


def test_a_snapshot_that_came_while_another_was_built_is_held_while_it_is_replaced(
    tiny_student: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    new = write_passages(tmp_path / "new.jsonl", "new")
    place = _workplace(str(out), force=True)
    plan = plan_of(place, tiny_student, new)
    work_through(place, plan)
    build(load_encoder(tiny_student, threads=1), write_passages(tmp_path / "old.jsonl", "old"), out)
    with writer_lock(out, "add"), pytest.raises(SnapshotBusyError, match="add"):
        _publish(place, plan, str(out), force=True)
    with Snapshot.open(out) as snapshot:
        assert "old0" in snapshot.passages(["old0"])


@pytest.mark.parametrize(
    "settings", [{"length_prior": {"penalty": 0.04, "offset": 64}}, {"query_prefix": [4], "passage_prefix": [5]}]
)
def test_a_student_builds_though_a_snapshot_keeps_less_of_it_than_it_says(
    tiny_student: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    student = tmp_path / "student"
    shutil.copytree(tiny_student, student)
    for record in (student / "drdecr.json", student / "onnx" / "encoder.json"):
        record.write_text(json.dumps({**json.loads(record.read_text()), **settings}))
    spec = load_encoder(student, threads=1).spec
    assert spec.length_prior is not None or spec.sides_apart
    out = tmp_path / "out"
    build_alone(student, write_passages(tmp_path / "passages.jsonl", "new"), str(out))
    with Snapshot.open(out) as snapshot:
        assert len(snapshot) == 40
