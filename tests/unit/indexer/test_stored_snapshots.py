"""Snapshots that released versions wrote: every later program reads, searches and changes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from store_snapshot import ENCODER, answers, encoder_of, passages, write_jsonl

from drdecr.index import Snapshot
from drdecr.index.filters import Filter
from drdecr.index.manifest import FORMAT_VERSION, read_manifest
from indexer.change import add
from indexer.compact import compact
from indexer.damage import verify

STORED = sorted((Path(__file__).parents[2] / "stored").glob("format-*"))


@pytest.fixture(params=STORED, ids=lambda path: path.name)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


def test_there_is_a_stored_snapshot_of_every_format() -> None:
    formats = {path.name: read_manifest(path / "snapshot").format_version for path in STORED}
    assert formats == {f"format-{number}": number for number in range(1, FORMAT_VERSION + 1)}


def test_stored_snapshot_is_whole_and_answers_as_on_the_day_it_was_written(stored: Path) -> None:
    assert verify(stored / "snapshot").damage == []
    expected = json.loads((stored / "answers.json").read_text())
    with Snapshot.open(stored / "snapshot") as snapshot:
        assert len(snapshot) == 28
        for found, wanted in zip(answers(snapshot), expected, strict=True):
            assert [passage for passage, _ in found] == [passage for passage, _ in wanted]
            assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=2e-4)
        red = Filter.model_validate(
            {"must": [{"field": "colour", "eq": "red"}, {"field": "number", "range": {"lt": 9}}]}
        )
        hits = snapshot.search(ENCODER.encode(["apple"], "query"), 10, filter=red)[0]
        assert sorted(hit.id for hit in hits) == ["p0", "p4", "p8"]
        passage = snapshot.passage("p26")
        assert passage is not None and passage.text == "The quiet train of number 26."
        assert snapshot.passage("p3") is None


def test_stored_snapshot_can_be_changed_by_this_program(stored: Path, tmp_path: Path) -> None:
    encoder = encoder_of(stored)
    more = write_jsonl(tmp_path / "more.jsonl", passages(30, 33))
    add(stored / "snapshot", encoder, more)
    compact(stored / "snapshot")
    assert verify(stored / "snapshot").damage == []
    with Snapshot.open(stored / "snapshot") as snapshot:
        assert len(snapshot) == 31
        assert snapshot.search(ENCODER.encode([passages(32, 33)[0].text], "query"), 1)[0][0].id == "p32"
