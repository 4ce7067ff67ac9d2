"""A directory appears whole or not at all."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

import pytest

from drdecr.errors import UsageError
from indexer.staging import staged_directory


def snapshot_like(path: Path, text: str) -> None:
    path.mkdir(exist_ok=True)
    (path / "manifest.json").write_text(text)


def test_directory_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with staged_directory(out, force=False) as partial:
        snapshot_like(partial, "new")
        assert not out.exists()
        assert partial.parent == out.parent
    assert (out / "manifest.json").read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_directory_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="exists already"), staged_directory(out, force=False) as partial:
        snapshot_like(partial, "late")
        snapshot_like(out, "early")
    assert (out / "manifest.json").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("exchange", [True, False], ids=["in one step", "in two steps"])
def test_old_directory_stays_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    out = tmp_path / "out"
    snapshot_like(out, "old")
    with staged_directory(out, force=True) as partial:
        snapshot_like(partial, "new")
        assert (out / "manifest.json").read_text() == "old"
    assert (out / "manifest.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failed_swap_puts_the_old_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    out = tmp_path / "out"
    snapshot_like(out, "old")
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if (self / "manifest.json").read_text() == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(KeyboardInterrupt), staged_directory(out, force=True) as partial:
        snapshot_like(partial, "new")
    assert (out / "manifest.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["file", "link", "foreign"])
def test_force_replaces_nothing_but_snapshots(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("x")
    elif kind == "link":
        snapshot_like(tmp_path / "elsewhere", "x")
        out.symlink_to(tmp_path / "elsewhere")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not a snapshot"), staged_directory(out, force=True):
        raise AssertionError("the block must not run")
    assert out.exists()


def test_force_takes_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged_directory(tmp_path / "out", force=True) as partial:
        snapshot_like(partial, "new")
    assert (tmp_path / "out/manifest.json").is_file()


def test_remains_of_a_killed_build_are_removed_and_running_builds_are_not(tmp_path: Path) -> None:
    dead, alive, other = (tmp_path / f".{name}" for name in ("out.building-1", "out.building-2", "else.building-3"))
    for path in (dead, alive, other):
        path.mkdir()
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with staged_directory(tmp_path / "out", force=False) as partial:
        snapshot_like(partial, "new")
    os.close(descriptor)
    assert {path.name for path in tmp_path.iterdir()} == {"out", alive.name, other.name}
