"""Where `drdecr search --run` writes: a file that is whole or not there, a pipe as it is."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from drdecr.index.commands import _replaced


def test_file_is_replaced_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("older")
    with pytest.raises(RuntimeError), _replaced(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "older"
    with _replaced(path) as file:
        file.write("whole")
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(tmp_path / "run.trec")
    with _replaced(tmp_path / "latest") as file:
        file.write("new")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "run.trec").read_text() == "new"


def test_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    with _replaced(path) as file:
        file.write("through")
    reader.join(30)
    assert read == ["through"]
    assert stat.S_ISFIFO(path.stat().st_mode)
