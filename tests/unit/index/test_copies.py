"""Copies of remote snapshots: swept unless a process that lives holds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drdecr.index.copies import hold, sweep

ONE, TWO = "1" * 32, "2" * 32
HOLDER = """
import sys
from pathlib import Path
from drdecr.index.copies import hold
hold(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with the copies of two versions, of which an earlier process held both."""
    for version in (ONE, TWO):
        (tmp_path / version / "segments").mkdir(parents=True)
        (tmp_path / version / "segments" / "codes").write_bytes(b"codes")
        os.close(hold(tmp_path, version))
    return tmp_path


def test_what_a_live_process_holds_stays_until_it_is_killed(cache: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, cache, ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert sweep(cache) == [TWO]
        assert {path.name for path in cache.iterdir()} == {ONE, f"{ONE}.lock"}
        assert (cache / ONE / "segments" / "codes").read_bytes() == b"codes"
        holder.kill()
    assert sweep(cache) == [ONE]
    assert list(cache.iterdir()) == []


def test_two_hold_one_copy_and_the_last_lets_go(cache: Path) -> None:
    first, second = hold(cache, ONE), hold(cache, ONE)
    os.close(first)
    assert sweep(cache) == [TWO]
    os.close(second)
    assert sweep(cache) == [ONE]


def test_a_version_that_was_swept_can_be_held_again(cache: Path) -> None:
    sweep(cache)
    held = hold(cache, ONE)
    assert sweep(cache) == []
    os.close(held)


def test_a_copy_that_cannot_be_removed_stays_and_is_tried_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as broken:
        broken.setattr("drdecr.index.copies.shutil.rmtree", refuse)
        assert sweep(cache) == []
    assert sweep(cache) == [ONE, TWO]


def test_files_that_are_no_copies_stay(cache: Path, tmp_path: Path) -> None:
    (cache / "notes").mkdir()
    (cache / "notes" / "list.txt").write_text("mine")
    (cache / "notes.lock").touch()
    sweep(cache)
    assert (cache / "notes" / "list.txt").read_text() == "mine"
    assert (cache / "notes.lock").exists()
    assert sweep(tmp_path / "nothing here") == []
