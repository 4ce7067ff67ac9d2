from __future__ import annotations

import fcntl
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from changing import ENCODER
from data_lab import publish

from drdecr.collections import uploads
from drdecr.collections.directory import DataDirectory
from drdecr.collections.uploads import (
    Delete,
    Put,
    UploadWriter,
    drop_uploads,
    parse_delete,
    parse_put,
    read_upload,
    staged_uploads,
)
from drdecr.corpus import MAX_LINE_BYTES, Passage
from drdecr.errors import ResourceError, UnknownNameError


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs")
    return directory


def line(each: str, text: str = "a text") -> bytes:
    return json.dumps({"id": each, "text": text}).encode() + b"\n"


def test_lines_are_found_however_the_body_is_cut(directory: DataDirectory):
    passages = [Passage(f"p{i}", f"text \u2028 {i} ü", "Title" if i % 2 else None, {"n": i}) for i in range(50)]
    records = [
        {"id": each.id, "text": each.text, "title": each.title, "metadata": each.metadata} for each in passages
    ]
    body = b"\r\n\n".join(json.dumps(record, ensure_ascii=False).encode() for record in records)
    chance = random.Random(1)
    with UploadWriter(directory, "docs", parse_put) as writer:
        while body:
            size = chance.randint(1, 40)
            writer.feed(body[:size])
            body = body[size:]
        staged = writer.finish()
    assert (staged.number, staged.staged, staged.rejected) == (1, 50, 0)
    assert list(read_upload(directory, "docs", 1)) == [Put(each) for each in passages]


def test_bad_lines_are_named_and_the_good_ones_staged(directory: DataDirectory):
    bad = [b"{\n", b'{"id": "x", "text": " "}\n', b"\xff\n", b"[]\n"]
    with UploadWriter(directory, "docs", parse_put) as writer:
        for each in (line("a"), *bad, line("b")):
            writer.feed(each)
        staged = writer.finish()
    assert (staged.staged, staged.rejected) == (2, 4)
    assert [error.line for error in staged.errors] == [2, 3, 4, 5]
    assert "not UTF-8" in staged.errors[2].message


def test_integer_that_python_will_not_read_is_a_bad_line(directory: DataDirectory):
    for number, parse in enumerate((parse_put, parse_delete), start=1):
        with UploadWriter(directory, "docs", parse) as writer:
            writer.feed(b'{"id": "x", "text": "t", "metadata": {"n": ' + b"9" * 5000 + b"}}\n" + line("b"))
            staged = writer.finish()
        assert (staged.number, staged.staged, staged.rejected) == (number, 1, 1)
        assert staged.errors[0].line == 1 and "integer that is too long" in staged.errors[0].message


def test_overlong_line_is_not_kept_in_memory(directory: DataDirectory):
    with UploadWriter(directory, "docs", parse_put) as writer:
        for _ in range(3 * MAX_LINE_BYTES // 2**20):
            writer.feed(b" " * 2**20)
            assert len(writer._rest) <= MAX_LINE_BYTES
        writer.feed(b"\n" + line("a"))
        staged = writer.finish()
    assert (staged.staged, staged.errors[0].line) == (1, 1)


def test_upload_without_a_good_line_is_not_staged(directory: DataDirectory):
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(b"{\n")
        assert writer.finish().number is None
    assert staged_uploads(directory, "docs") == []
    assert [path.name for path in (directory.path("docs") / "uploads").iterdir()] == []


def test_upload_that_breaks_off_leaves_nothing(directory: DataDirectory):
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(line("a"))
    assert list((directory.path("docs") / "uploads").iterdir()) == []


def test_what_a_killed_service_left_is_swept_and_what_goes_on_is_not(directory: DataDirectory):
    folder = directory.path("docs") / "uploads"
    (folder / ".left").write_bytes(line("a"))
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(line("b"))
        drop_uploads(directory, "docs")
        assert not (folder / ".left").exists()
        assert writer.finish().number == 1


def test_deletions_are_staged_in_their_turn(directory: DataDirectory):
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(line("a"))
        writer.finish()
    with UploadWriter(directory, "docs", parse_delete) as writer:
        writer.feed(b'{"id": "a"}\n{"id": 7}')
        assert writer.finish().number == 2
    assert list(read_upload(directory, "docs", 2)) == [Delete("a"), Delete("7")]
    assert staged_uploads(directory, "docs") == [1, 2]


def test_index_that_is_not_there_or_goes(directory: DataDirectory):
    with pytest.raises(UnknownNameError):
        UploadWriter(directory, "none", parse_put)
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(line("a"))
        directory.delete_index("docs")
        with pytest.raises(UnknownNameError, match="dropped"):
            writer.finish()


def test_damaged_upload_is_named(directory: DataDirectory):
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(line("a"))
        writer.finish()
    (directory.path("docs") / "uploads" / "00000001.jsonl").write_text('{"text"')
    with pytest.raises(ResourceError, match="damaged"):
        list(read_upload(directory, "docs", 1))


def test_upload_takes_a_number_that_no_version_holds_yet(
    directory: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A worker publishes and drops between the two things that the next number depends on."""
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(line("a"))
        assert writer.finish().number == 1
    published = []

    def publishing(read: Callable[..., Any], *arguments: Any) -> Any:
        found = read(*arguments)
        if not published:
            published.append(publish(directory, "docs", ENCODER, {"a": "a text"}, tmp_path / "scratch", through=1))
            (directory.path("docs") / "uploads" / "00000001.jsonl").unlink()
        return found

    for name in ("_numbers", "built_through"):
        monkeypatch.setattr(uploads, name, partial(publishing, getattr(uploads, name)))
    with UploadWriter(directory, "docs", parse_put) as writer:
        writer.feed(line("b"))
        assert writer.finish().number == 2
    drop_uploads(directory, "docs")
    assert staged_uploads(directory, "docs") == [2]


def test_sweeping_waits_for_an_upload_that_begins(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch):
    """Between its making and its locking a partial file looks as one that a killed service left."""
    swept: list[Thread] = []

    def sweeping(descriptor: int, operation: int) -> None:
        if not swept and operation & fcntl.LOCK_NB:
            swept.append(Thread(target=drop_uploads, args=(directory, "docs")))
            swept[0].start()
            swept[0].join(0.5)
            assert list((directory.path("docs") / "uploads").glob(".*"))
        flock(descriptor, operation)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", sweeping)
    with UploadWriter(directory, "docs", parse_put) as writer:
        swept[0].join()
        writer.feed(line("a"))
        assert writer.finish().number == 1
