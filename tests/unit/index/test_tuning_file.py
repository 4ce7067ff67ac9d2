"""The tuned setting beside the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fabricated_vectors import encoded, make_snapshot

from drdecr.errors import SnapshotCorruptError
from drdecr.index import Snapshot
from drdecr.index.tuning import TUNING, Tuning, read_tuning, remove_tuning, write_tuning

TUNED = Tuning(
    version="v", passages=20, k=10, nprobe=5, candidates=40, wanted_recall=0.9, recall=0.95, queries=50, cpu_ms=1.5
)


def test_tuning_survives_writing(tmp_path: Path) -> None:
    assert read_tuning(tmp_path) is None
    write_tuning(tmp_path, TUNED)
    write_tuning(tmp_path, TUNED)
    assert read_tuning(tmp_path) == TUNED
    assert [path.name for path in tmp_path.iterdir()] == [TUNING]
    assert remove_tuning(tmp_path) and not remove_tuning(tmp_path)
    assert read_tuning(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"nprobe": 5', '"nprobe": 6'),
        lambda text: text[:-9],
        lambda _: "",
        lambda _: "[]",
        lambda _: '{"checksum": "x"}',
        lambda _: "\udcff",
    ],
)
def test_damaged_tuning_is_refused_and_the_way_out_is_named(tmp_path: Path, damage) -> None:
    with make_snapshot(tmp_path, encoded([3] * 20, 16)) as snapshot:
        path = snapshot.path
    write_tuning(path, TUNED)
    text = (path / TUNING).read_text()
    (path / TUNING).write_bytes(damage(text).encode("utf-8", "surrogateescape"))
    with pytest.raises(SnapshotCorruptError, match=r"tuning\.json is damaged.*--reset"):
        Snapshot.open(path)


def test_tuning_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    write_tuning(tmp_path, TUNED.model_copy(update={"format_version": 2}))
    with pytest.raises(SnapshotCorruptError, match="newer than this program"):
        read_tuning(tmp_path)


def test_snapshot_searches_as_it_was_tuned(tmp_path: Path) -> None:
    passages = encoded([4] * 900, 16)
    with make_snapshot(tmp_path, passages) as snapshot:
        version, path = snapshot.version, snapshot.path
        wide = snapshot.search(encoded([3] * 20, 16, seed=1), 10)
    write_tuning(path, TUNED.model_copy(update={"nprobe": 1, "candidates": 1, "passages": 900}))
    with Snapshot.open(path, verify=True) as tuned:
        assert tuned.version == version
        narrow = tuned.search(encoded([3] * 20, 16, seed=1), 10)
    assert json.loads((path / TUNING).read_text())["nprobe"] == 1
    assert narrow != wide
