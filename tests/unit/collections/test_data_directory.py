from __future__ import annotations

import threading
from pathlib import Path

import pytest
from changing import ENCODER
from data_lab import publish

from drdecr.collections.directory import DataDirectory
from drdecr.collections.files import locked, try_lock
from drdecr.collections.records import AliasRecord
from drdecr.errors import (
    NameInUseError,
    NameTakenError,
    PreconditionError,
    RecordCorruptError,
    UnknownNameError,
    UsageError,
)


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "data")


@pytest.fixture
def built(directory: DataDirectory, tmp_path: Path) -> DataDirectory:
    directory.create_index("docs")
    for number in range(1, 4):
        publish(directory, "docs", ENCODER, {"a": f"text {number}"}, tmp_path / "scratch")
    return directory


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", ".a", "a\n", "a b", "a" * 65, "ä", "a\0"])
def test_name_that_could_lead_elsewhere_is_refused(directory: DataDirectory, name: str):
    for attempt in (directory.create_index, directory.index, directory.alias, directory.delete_index):
        with pytest.raises(UsageError, match="is no name"):
            attempt(name)


def test_names_are_one_space(built: DataDirectory):
    built.switch_alias("live", built.target("docs"))
    with pytest.raises(NameTakenError):
        built.create_index("live")
    with pytest.raises(NameTakenError):
        built.create_index("docs")
    with pytest.raises(NameTakenError):
        built.switch_alias("docs", built.target("docs"))
    with pytest.raises(NameTakenError):
        built.create_index("fixed", reserved={"fixed"})


def test_alias_remembers_what_it_pointed_at(built: DataDirectory):
    built.switch_alias("live", built.target("docs", 1))
    switched = built.switch_alias("live", built.target("docs"))
    assert switched.previous is not None
    assert (switched.target.number, switched.previous.number) == (3, 1)
    back = built.switch_alias("live", switched.previous)
    assert (back.target.number, back.etag != switched.etag) == (1, True)


def test_switch_to_what_it_points_at_already_changes_nothing(built: DataDirectory):
    first = built.switch_alias("live", built.target("docs"))
    assert built.switch_alias("live", built.target("docs")) == first


def test_condition_decides_under_the_lock_which_of_many_writers_wins(built: DataDirectory):
    etag = built.switch_alias("live", built.target("docs", 1)).etag
    outcomes: list[AliasRecord | Exception] = []

    def switch(number: int) -> None:
        try:
            outcomes.append(built.switch_alias("live", built.target("docs", number), allowed=etag.__eq__))
        except PreconditionError as error:
            outcomes.append(error)

    writers = [threading.Thread(target=switch, args=(number,)) for number in (2, 3) * 4]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    won = [outcome for outcome in outcomes if isinstance(outcome, AliasRecord)]
    assert len(won) == 1
    assert built.alias("live") == won[0]


def test_index_in_use_is_not_dropped(built: DataDirectory):
    built.switch_alias("live", built.target("docs"))
    with pytest.raises(NameInUseError, match="live"):
        built.delete_index("docs")
    built.delete_alias("live")
    built.delete_index("docs")
    assert built.names() == {}
    assert list((built.root / "indexes").iterdir()) == []


def test_target_of_a_dropped_index_is_not_that_of_its_successor(built: DataDirectory, tmp_path: Path):
    old = built.target("docs", 1)
    built.delete_index("docs")
    built.create_index("docs")
    publish(built, "docs", ENCODER, {"a": "other"}, tmp_path / "again")
    with pytest.raises(UnknownNameError, match="made again"):
        built.switch_alias("live", old)


def test_pruning_keeps_what_an_alias_points_at_and_what_it_pointed_at(built: DataDirectory, tmp_path: Path):
    built.switch_alias("live", built.target("docs", 1))
    for _ in range(3):
        publish(built, "docs", ENCODER, {"a": "more"}, tmp_path / "scratch")
    assert built.prune("docs") == [2, 3, 4]
    built.switch_alias("live", built.target("docs", 5))
    assert built.prune("docs") == []
    built.switch_alias("live", built.target("docs", 6))
    assert built.prune("docs") == [1]
    assert built.versions("docs") == [5, 6]


def test_half_made_index_is_none(directory: DataDirectory):
    (directory.root / "indexes" / ".docs.123" / "versions").mkdir(parents=True)
    (directory.root / "indexes" / "bare").mkdir()
    assert directory.names() == {}


def test_damaged_alias_is_named_and_the_others_are_read(built: DataDirectory):
    for alias in ("live", "next"):
        built.switch_alias(alias, built.target("docs"))
    (built.root / "aliases" / "live.json").write_text("{")
    names = built.names()
    assert isinstance(names["live"], RecordCorruptError)
    assert "live.json is damaged" in str(names["live"])
    assert names["next"] == names["docs"] == built.target("docs")
    assert list(built.aliases()) == ["next"]
    with pytest.raises(RecordCorruptError, match=r"live\.json is damaged: .*, or delete the alias"):
        built.switch_alias("live", built.target("docs", 1))


def test_alias_that_may_not_be_read_is_named(built: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    built.switch_alias("live", built.target("docs"))

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RecordCorruptError, match=r"live\.json cannot be read: Permission denied"):
        built.alias("live")


def test_nothing_is_pruned_or_dropped_while_an_alias_is_damaged(built: DataDirectory, tmp_path: Path):
    built.switch_alias("live", built.target("docs", 1))
    for _ in range(2):
        publish(built, "docs", ENCODER, {"a": "more"}, tmp_path / "scratch")
    content = (built.root / "aliases" / "live.json").read_bytes()
    (built.root / "aliases" / "live.json").write_text("{")
    assert built.prune("docs") == []
    with pytest.raises(NameInUseError, match=r"live.* may point at 'docs': .*live\.json is damaged"):
        built.delete_index("docs")
    (built.root / "aliases" / "live.json").write_bytes(content)
    assert built.prune("docs") == [2, 3]


def test_damaged_index_leaves_the_others_and_may_be_dropped(built: DataDirectory):
    built.create_index("other")
    (built.path("docs") / "index.json").write_text("{")
    assert list(built.indexes()) == ["other"]
    assert isinstance(built.names()["docs"], RecordCorruptError)
    built.delete_index("docs")
    assert built.index_names() == ["other"]


def test_lock_is_held_by_one(tmp_path: Path):
    with locked(tmp_path / "lock"):
        assert try_lock(tmp_path / "lock") is None
    assert try_lock(tmp_path / "missing") is None
    assert try_lock(tmp_path / "lock") is not None
