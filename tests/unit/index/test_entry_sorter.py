"""Metadata are sorted in little memory, and on no other disk than the output's."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated_vectors import WordEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drdecr.corpus import Passage
from drdecr.errors import ResourceError
from drdecr.index import entry_sorter
from drdecr.index.entry_sorter import Entry, EntrySorter
from drdecr.index.metadata_index import MetadataIndexWriter
from drdecr.index.passages import PassageWriter
from indexer.build import build

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ENTRIES = st.lists(
    st.tuples(st.just(0), NUMBERS, st.integers(0, 2**32 - 1))
    | st.tuples(st.just(1), TEXTS, st.integers(0, 9))
    | st.tuples(st.just(2), st.booleans(), st.integers(0, 9)),
    max_size=60,
)


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_sorter, "_RUN", 7)
    monkeypatch.setattr(entry_sorter, "_CHUNK", 3)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=ENTRIES)
def test_entries_come_sorted_and_as_they_were(small_runs: None, tmp_path: Path, entries: list[Entry]) -> None:
    with EntrySorter(tmp_path) as sorter:
        sorter.add(entries)
        found = list(sorter.merged())
    assert found == sorted(entries)
    assert sorted(map(repr, found)) == sorted(map(repr, entries))
    assert not list(tmp_path.iterdir())


def test_metadata_are_the_same_however_they_were_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    metadata = [
        {"n": chance.choice([at, at / 3, 1, 1.0]), "tags": [f"t{at % 5}", "x"], "b": at > 3} for at in range(300)
    ]
    passages = [Passage(f"p{at}", "t", None, each) for at, each in enumerate(metadata)]
    for name, run in (("memory", 2**17), ("disk", 10)):
        monkeypatch.setattr(entry_sorter, "_RUN", run)
        with PassageWriter(tmp_path / name) as writer:
            writer.add(passages)
    assert (tmp_path / "memory").read_bytes() == (tmp_path / "disk").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells open files by /proc")
def test_sorting_writes_to_no_other_place_than_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = set(open_files()), set()
    write_chunk = MetadataIndexWriter._write_chunk

    def noted(self: MetadataIndexWriter, *arguments: Any) -> None:
        seen.update(open_files())
        write_chunk(self, *arguments)

    monkeypatch.setattr(MetadataIndexWriter, "_write_chunk", noted)
    with PassageWriter(tmp_path / "passages.sqlite") as writer:
        # More than SQLite would hold in memory too.
        tags = ([f"tag {at % 97} {i}" for i in range(8)] for at in range(25_000))
        writer.add(Passage(f"p{at}", "t", None, {"tags": each}) for at, each in enumerate(tags))
        seen.update(open_files())
    elsewhere = {path for path in seen - before if not path.startswith(str(tmp_path))}
    assert not elsewhere
    assert len(seen - before) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["passages.sqlite"]


def open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            path = str(link.readlink())
        except OSError:
            continue
        if path.startswith("/") and not path.startswith(("/proc/", "/dev/", "/sys/")):
            yield path


def test_full_disk_under_the_sorting_is_named_and_leaves_nothing(
    small_runs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passages.jsonl"
    lines = [json.dumps({"id": f"p{at}", "text": f"word{at}", "metadata": {"n": at}}) for at in range(50)]
    file.write_text("\n".join(lines), encoding="utf-8")

    def refused(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(entry_sorter.os, "write", refused)
    with pytest.raises(ResourceError, match=rf"the disk of {tmp_path} is full"):
        build(WordEncoder(16), file, tmp_path / "snapshot")
    assert [path.name for path in tmp_path.iterdir()] == ["passages.jsonl"]
