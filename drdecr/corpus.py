"""Passages, queries, judgments, runs and parallel pairs: one reader for each file format.

Every reader streams, opens gzip by its magic bytes, and names a bad line by file and number. A bad line stops the
reader with `InputError`, unless a `SkippedLines` is passed: then it is counted there and left out.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from drdecr.errors import InputError

MetadataScalar = str | int | float | bool | None
Metadata = dict[str, "MetadataValue"]
MetadataValue = MetadataScalar | list[str] | list[MetadataScalar] | Metadata
Qrels = dict[str, dict[str, int]]
"""query id -> passage id -> grade; a grade above 0 is relevant."""

MAX_ID_CHARS = 512
MAX_LINE_BYTES = 16 * 2**20
MAX_METADATA_DEPTH = 8

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Passage:
    """An English text with an id; `content` is what an encoder reads."""

    id: str
    text: str
    title: str | None = None
    metadata: Metadata = field(default_factory=dict)

    @property
    def content(self) -> str:
        return f"{self.title}: {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A question in any language."""

    id: str
    text: str
    lang: str | None = None


@dataclass(frozen=True, slots=True)
class ParallelPair:
    """An English text and its translation; `source` names the collection they come from."""

    source: str
    english: str
    translation: str


@dataclass(slots=True)
class SkippedLines:
    """Counts the bad lines that a reader left out, and keeps the first few messages."""

    count: int = 0
    messages: list[str] = field(default_factory=list)

    def add(self, error: InputError) -> None:
        self.count += 1
        if len(self.messages) < 10:
            self.messages.append(str(error))


def read_passages(path: str | Path, *, skipped: SkippedLines | None = None) -> Iterator[Passage]:
    """Read passages from JSONL (`id`, `text`, optional `title` and `metadata`) or DPR's TSV (`id text title`).

    Under DPR's header the quotes of fields are taken off (`unquoted`).
    Raises: InputError at an unreadable line, an empty text or a second passage with the same id.
    """
    seen: set[str] = set()
    quoted = False

    def is_header(line: str) -> bool:
        nonlocal quoted
        quoted = is_dpr_header(line)
        return line.split("\t")[:2] == ["id", "text"]

    def parse(line: str, *, tsv: bool) -> Passage:
        passage = _passage_from_tsv(line, quoted=quoted) if tsv else passage_from_json(line)
        if passage.id in seen:
            raise InputError(f"passage id {passage.id!r} appears a second time; ids must be unique")
        seen.add(passage.id)
        return passage

    return _parse_lines(path, parse, skipped, is_header=is_header)


def is_dpr_header(line: str) -> bool:
    """Tell whether this first line of a TSV is that of DPR's collection, which is written as a quoted CSV."""
    return line == "id\ttext\ttitle"


def unquoted(field: str) -> str:
    """Take off the quotes that a CSV writer put around a field, and halve those that it doubled within.

    A field with a quote within that is not doubled was not written so, and stays as it is.
    """
    if len(field) < 2 or not field[0] == field[-1] == '"':
        return field
    inner = field[1:-1]
    return field if '"' in inner.replace('""', "") else inner.replace('""', '"')


def passage_from_json(line: str) -> Passage:
    """Read one JSON object as a passage. Raises: InputError without a place."""
    record = _json_object(line)
    text = _string(record, "text")
    if not text.strip():
        raise InputError("the text is empty; leave such passages out")
    title = record.get("title")
    if title is not None and not isinstance(title, str):
        raise InputError("`title` must be a string")
    _reject_surrogates(title or "", "title")
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError("`metadata` must be an object")
    _check_metadata(metadata, "metadata", 1)
    _reject_surrogates(json.dumps(metadata, ensure_ascii=False), "metadata")
    return Passage(_identifier(record), text, title or None, metadata)


def id_from_json(line: str) -> str:
    """Read the `id` of one JSON object. Raises: InputError without a place."""
    return _identifier(_json_object(line))


def read_queries(path: str | Path, *, skipped: SkippedLines | None = None) -> Iterator[Query]:
    """Read queries from TSV (`id text`) or JSONL (`id`, `text`, optional `lang`).

    Raises: InputError at an unreadable line, an empty text or a repeated id.
    """
    seen: set[str] = set()

    def parse(line: str, *, tsv: bool) -> Query:
        if tsv:
            fields = line.split("\t")
            if len(fields) != 2:
                raise InputError(f"expected 2 tab-separated fields (id, text), found {len(fields)}")
            query = Query(_checked_id(fields[0]), fields[1].strip())
        else:
            record = _json_object(line)
            lang = record.get("lang")
            if lang is not None and not isinstance(lang, str):
                raise InputError("`lang` must be a string")
            query = Query(_identifier(record), _string(record, "text"), lang)
        if not query.text.strip():
            raise InputError("the query is empty")
        if query.id in seen:
            raise InputError(f"query id {query.id!r} appears a second time; ids must be unique")
        seen.add(query.id)
        return query

    return _parse_lines(path, parse, skipped)


def read_pairs(
    path: str | Path, *, source: str | None = None, skipped: SkippedLines | None = None
) -> Iterator[ParallelPair]:
    """Read parallel pairs from TSV: `source English translation`; `English translation` where `source` is given.

    Raises: InputError.
    """

    def parse(line: str, *, tsv: bool) -> ParallelPair:
        fields = line.split("\t")
        if source is not None and len(fields) == 2:
            fields = [source, *fields]
        if len(fields) != 3:
            raise InputError(f"expected 3 tab-separated fields (source, English, translation), found {len(fields)}")
        if not fields[1].strip() or not fields[2].strip():
            raise InputError("one side of the pair is empty")
        return ParallelPair(*fields)

    return _parse_lines(path, parse, skipped, always_tsv=True)


def read_qrels(path: str | Path) -> Qrels:
    """Read TREC judgments: `query 0 passage grade`. Raises: InputError."""
    qrels: Qrels = {}
    for number, line in read_lines(path):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 4:
            raise InputError("expected 4 fields (query 0 passage grade)", path=path, line=number)
        try:
            qrels.setdefault(fields[0], {})[fields[2]] = int(fields[3])
        except ValueError:
            raise InputError(f"the grade {fields[3]!r} is no integer", path=path, line=number) from None
    return qrels


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a TREC run, `query Q0 passage rank score tag`, as query -> passage -> score. Raises: InputError."""
    run: dict[str, dict[str, float]] = {}
    for number, line in read_lines(path):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 6:
            raise InputError("expected 6 fields (query Q0 passage rank score tag)", path=path, line=number)
        try:
            run.setdefault(fields[0], {})[fields[2]] = float(fields[4])
        except ValueError:
            raise InputError(f"the score {fields[4]!r} is no number", path=path, line=number) from None
    return run


def _parse_lines(
    path: str | Path,
    parse: Callable[..., _T],
    skipped: SkippedLines | None,
    *,
    is_header: Callable[[str], bool] = lambda _: False,
    always_tsv: bool = False,
) -> Iterator[_T]:
    tsv = always_tsv
    first = True
    for number, line in read_lines(path, skipped):
        if not line.strip():
            continue
        if first and not always_tsv:
            tsv = not line.lstrip().startswith("{") and "\t" in line
            first = False
            if tsv and is_header(line):
                continue
        try:
            yield parse(line, tsv=tsv)
        except InputError as problem:
            error = InputError(str(problem), path=path, line=number)
            if skipped is None:
                raise error from None
            skipped.add(error)


def read_lines(path: str | Path, skipped: SkippedLines | None = None) -> Iterator[tuple[int, str]]:
    """Yield (1-based number, text without line end) of a plain or gzip file in UTF-8.

    Raises: InputError that names the line, for one that is not UTF-8 or longer than MAX_LINE_BYTES, and where a gzip
    file is broken, which no `skipped` passes over.
    """
    with open_bytes(path) as file:
        number = 0
        try:
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                try:
                    yield number, _decode(raw, number)
                except InputError as problem:
                    error = InputError(str(problem), path=path, line=number)
                    if skipped is None:
                        raise error from None
                    while not raw.endswith(b"\n") and (raw := file.readline(MAX_LINE_BYTES)):
                        pass
                    skipped.add(error)
        except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
            raise InputError(
                f"the gzip file is broken ({problem}); fetch it again", path=path, line=number + 1
            ) from None


def _decode(raw: bytes, number: int) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise InputError(f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as problem:
        raise InputError(f"not UTF-8 (byte {problem.start + 1} of the line); convert the file to UTF-8") from None


def open_bytes(path: str | Path) -> IO[bytes]:
    """Open a file or a pipe to read, through gzip where it begins as gzip does. Raises: InputError."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (the caller closes it)
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except IsADirectoryError:
        raise InputError("is a directory, expected a file", path=path) from None
    # A pipe cannot go back to its beginning.
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    zipped = gzip.GzipFile(fileobj=file)
    # So that closing the one closes the other.
    zipped.myfileobj = file  # type: ignore[assignment]
    return zipped  # type: ignore[return-value]


def _json_object(line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as problem:
        raise InputError(f"not JSON ({problem})") from None
    except ValueError:
        # Python reads no integer of more than some thousand digits.
        raise InputError("holds an integer that is too long to be read; write it as a string") from None
    if not isinstance(record, dict):
        raise InputError("expected a JSON object")
    return record


def _string(record: dict[str, object], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise InputError(f"`{key}` is missing or not a string")
    _reject_surrogates(value, key)
    return value


def _reject_surrogates(value: str, key: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"`{key}` holds half a surrogate pair; repair the text where it was written") from None


def _identifier(record: dict[str, object]) -> str:
    value = record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise InputError("`id` is missing or neither a string nor an integer")
    return _checked_id(value)


def _checked_id(value: str) -> str:
    if not value or len(value) > MAX_ID_CHARS or any(char.isspace() or not char.isprintable() for char in value):
        raise InputError(f"the id {value[:40]!r} must be 1 to {MAX_ID_CHARS} printable characters without spaces")
    return value


def _check_metadata(metadata: dict[str, object], place: str, depth: int) -> None:
    if depth > MAX_METADATA_DEPTH:
        raise InputError(f"`metadata` nests more than {MAX_METADATA_DEPTH} objects; flatten it")
    for name, value in metadata.items():
        if isinstance(value, dict):
            _check_metadata(value, f"{place}.{name}", depth + 1)
        else:
            for each in value if isinstance(value, list) else [value]:
                _check_metadata_scalar(each, f"{place}.{name}"[:100])


def _check_metadata_scalar(value: object, place: str) -> None:
    """Refuse what a filter could not compare. Raises: InputError."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"`{place}` holds an integer of more than 64 bits; write it as a string")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"`{place}` holds a number that is not finite; leave it out")
    if value is not None and not isinstance(value, str | int | float | bool):
        raise InputError(f"`{place}` holds a list or an object within a list; only strings, numbers and booleans can")


def _passage_from_tsv(line: str, *, quoted: bool) -> Passage:
    fields = line.split("\t")
    if quoted:
        fields = list(map(unquoted, fields))
    if len(fields) not in (2, 3):
        raise InputError(f"expected 2 or 3 tab-separated fields (id, text, title), found {len(fields)}")
    if not fields[1].strip():
        raise InputError("the text is empty; leave such passages out")
    return Passage(_checked_id(fields[0]), fields[1], fields[2] if len(fields) == 3 and fields[2] else None)
