"""Filters, the tuned setting and the recall estimate on a snapshot that was changed: segments, deleted passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from changing import ENCODER
from fabricated_filters import passes

from drdecr.index import EXACT, Snapshot
from drdecr.index.filters import parse_filter
from drdecr.index.tuning import Tuning, read_tuning, write_tuning
from indexer.build import build
from indexer.change import add, delete
from indexer.compact import compact
from indexer.inspect import describe, estimate_recall

FILTERS: list[dict[str, Any]] = [
    {"must": [{"field": "colour", "eq": "red"}]},
    {"must_not": [{"field": "colour", "eq": "red"}]},
    {"must": [{"field": "n", "range": {"gte": 35, "lt": 55}}]},
    {"must": [{"field": "added", "eq": None}]},
    {},
]
QUERIES = ["word3 all", "things"]


def written(path: Path, records: dict[str, dict[str, Any]]) -> Path:
    lines = ({"id": each, "text": f"word{each[1:]} all things", "metadata": own} for each, own in records.items())
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def hits_of(path: Path, wanted: dict[str, Any]) -> list[list[tuple[str, float]]]:
    with Snapshot.open(path, verify=True) as snapshot:
        answers = snapshot.search(ENCODER.encode(QUERIES, "query"), 1000, EXACT, filter=parse_filter(wanted))
    return [sorted(((hit.id, round(hit.score, 4)) for hit in hits), key=lambda hit: hit[0]) for hits in answers]


@pytest.fixture
def changed(tmp_path: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    records: dict[str, dict[str, Any]] = {
        f"p{i}": {"n": i, "colour": ("red", "green", "blue")[i % 3]} for i in range(45)
    }
    build(ENCODER, written(tmp_path / "first.jsonl", records), tmp_path / "snap")
    second: dict[str, dict[str, Any]] = {f"p{i}": {"n": i, "colour": "red", "added": True} for i in range(40, 70)}
    add(tmp_path / "snap", ENCODER, written(tmp_path / "second.jsonl", second))
    gone = [f"p{i}" for i in range(0, 70, 4)]
    delete(tmp_path / "snap", gone)
    return tmp_path / "snap", {name: own for name, own in {**records, **second}.items() if name not in gone}


@pytest.mark.parametrize("compacted", [False, True], ids=["segments", "compacted"])
def test_filters_hold_after_changes(changed: tuple[Path, dict[str, dict[str, Any]]], compacted: bool) -> None:
    path, records = changed
    if compacted:
        compact(path)
    everything = hits_of(path, {})
    assert {name for name, _ in everything[0]} == set(records)
    for wanted in FILTERS:
        expected = [[hit for hit in hits if passes(wanted, records[hit[0]])] for hits in everything]
        assert hits_of(path, wanted) == expected
        assert expected[0]


def test_tuned_setting_stays_through_changes_and_says_its_version(
    changed: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    path, _ = changed
    with Snapshot.open(path) as snapshot:
        tuning = Tuning(
            version=snapshot.version,
            passages=len(snapshot),
            k=10,
            nprobe=3,
            candidates=30,
            wanted_recall=0.9,
            recall=0.9,
            queries=20,
            cpu_ms=1.0,
        )
    write_tuning(path, tuning)
    add(path, ENCODER, written(path.parent / "third.jsonl", {"p900": {}}))
    delete(path, ["p1"])
    compact(path)
    assert read_tuning(path) == tuning
    with Snapshot.open(path, verify=True) as snapshot:
        assert snapshot.tuning == tuning
    assert describe(path)["tuned"]["same_version"] is False


def test_recall_is_estimated_over_the_passages_that_are_left(changed: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    path, records = changed
    facts = estimate_recall(path, 1000)
    assert f"of {len(records)} passages" in str(facts["recall_estimate_is"])
    assert facts["recall_estimate"] == 1.0
