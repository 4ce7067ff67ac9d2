"""Text files are read plain, through gzip and from pipes."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from drdecr.corpus import read_queries

LINES = b"q1\tdrucker einrichten\nq2\tschrift\n"


@pytest.mark.parametrize("content", [LINES, gzip.compress(LINES, mtime=0)], ids=["plain", "zipped"])
@pytest.mark.parametrize("piped", [False, True])
def test_queries_come_from_files_and_pipes_plain_or_zipped(content: bytes, piped: bool, tmp_path: Path) -> None:
    place = tmp_path / "queries.tsv"
    if piped:
        os.mkfifo(place)
        threading.Thread(target=place.write_bytes, args=(content,), daemon=True).start()
    else:
        place.write_bytes(content)
    assert [query.id for query in read_queries(place)] == ["q1", "q2"]


def test_an_empty_file_holds_no_queries(tmp_path: Path) -> None:
    place = tmp_path / "queries.tsv"
    place.touch()
    assert list(read_queries(place)) == []
