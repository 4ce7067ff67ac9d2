"""Text files are read plain, through gzip and from pipes."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest
from published_files import dpr_line

from drdecr.corpus import Passage, SkippedLines, read_passages, read_queries
from drdecr.errors import InputError

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


# As psgs_w100.tsv has them: text in quotes, inner ones doubled, a title in quotes where it holds some.
DPR = {
    "1": ('Aaron ( or ; "Ahärôn") is a prophet, "high priest"', "Aaron"),
    "2": ('He was called "Weird Al"', '"Weird Al" Yankovic'),
    "3": ("no quotes within", ""),
    "4": ('"', '"'),
}


def test_quotes_of_dprs_collection_are_taken_off(tmp_path: Path) -> None:
    lines = ["id\ttext\ttitle", *(dpr_line(each, text, title) for each, (text, title) in DPR.items())]
    assert lines[1] == '1\t"Aaron ( or ; ""Ahärôn"") is a prophet, ""high priest"""\tAaron'
    assert lines[2] == '2\t"He was called ""Weird Al"""\t"""Weird Al"" Yankovic"'
    place = tmp_path / "psgs_w100.tsv"
    place.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    assert list(read_passages(place)) == [Passage(each, text, title or None) for each, (text, title) in DPR.items()]


@pytest.mark.parametrize("text", ['"Yes" and "No"', '"', '"" and "', '"He', 'a "word" within', 'it ends "so"'])
def test_quotes_that_no_csv_writer_put_stay(text: str, tmp_path: Path) -> None:
    place = tmp_path / "passages.tsv"
    place.write_text(f"id\ttext\ttitle\n1\t{text}\t{text}\n", encoding="utf-8")
    assert list(read_passages(place)) == [Passage("1", text, text)]


@pytest.mark.parametrize("header", ["", "id\ttext\n"])
def test_tsv_without_dprs_header_keeps_its_quotes(header: str, tmp_path: Path) -> None:
    place = tmp_path / "passages.tsv"
    place.write_text(header + '1\t"all ""of"" it"\n', encoding="utf-8")
    assert list(read_passages(place)) == [Passage("1", '"all ""of"" it"')]


def test_empty_text_in_quotes_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "passages.tsv"
    place.write_text('id\ttext\ttitle\n1\t""\tA\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"passages\.tsv:2: the text is empty"):
        list(read_passages(place))


def test_integer_that_python_will_not_read_is_a_bad_line(tmp_path: Path) -> None:
    place = tmp_path / "passages.jsonl"
    lines = ['{"id": "a", "text": "t"}', f'{{"id": "b", "text": "t", "metadata": {{"n": {"9" * 5000}}}}}']
    place.write_text("\n".join([*lines, '{"id": "c", "text": "t"}']), encoding="utf-8")
    with pytest.raises(InputError, match=r"passages\.jsonl:2: holds an integer that is too long"):
        list(read_passages(place))
    skipped = SkippedLines()
    assert [passage.id for passage in read_passages(place, skipped=skipped)] == ["a", "c"]
    assert skipped.count == 1


@pytest.mark.parametrize("skipped", [None, SkippedLines()])
def test_gzip_file_damaged_in_its_middle_is_named_with_the_line(skipped: SkippedLines | None, tmp_path: Path) -> None:
    place = tmp_path / "queries.tsv.gz"
    packed = bytearray(gzip.compress(b"".join(b"q%d\tword %d\n" % (at, at * at) for at in range(20_000)), mtime=0))
    # Bytes that begin no valid block.
    packed[len(packed) // 2 : len(packed) // 2 + 200] = b"\xff" * 200
    place.write_bytes(packed)
    with pytest.raises(InputError, match=r"queries\.tsv\.gz:\d{2,}: the gzip file is broken \(.*fetch it again"):
        list(read_queries(place, skipped=skipped))
