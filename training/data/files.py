"""The directory of a fetched data set: what is in it, and how it gets there whole or not at all.

passages.jsonl, demo.passages.jsonl (what evaluation searches), train.passages.jsonl (nothing held out),
pairs.train.tsv.gz and pairs/<lang>.tsv.gz, queries/<lang>.<train|test>.tsv and queries/en.<train|test>.tsv (the same
ids), qrels.<train|test>.trec, cache/ (apt's lists), and meta.json, written last: without it nothing is finished.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from drdecr.corpus import ParallelPair, Passage
from drdecr.errors import InputError, ResourceError, is_full_disk
from training.data.task import DataSet, TaskQuery
from training.data.texts import fold

FORMAT = 1
META = "meta.json"


def write_data_set(out: Path, data: DataSet, request: Mapping[str, object]) -> dict[str, object]:
    """Write a data set and return its meta. An earlier one in `out` stops being valid when this begins.

    Raises: ResourceError when the disk is full.
    """
    facts = {
        "name": data.name,
        "request": dict(request),
        **data.facts,
        "passages": len(data.passages),
        "demo_passages": len(data.demo),
        "train_passages": len(data.train_passages),
        "queries": {"train": len(data.train), "test": len(data.test)},
        "languages": {lang: _counts(data, lang) for lang in data.pairs},
    }
    return _write(out, _write_all(out, data), facts)


def write_pairs(
    out: Path,
    pairs: Mapping[str, Iterable[ParallelPair]],
    facts: Mapping[str, object],
    request: Mapping[str, object],
) -> dict[str, object]:
    """Write pairs that are no data set, `out`/<lang>.tsv.gz, and return their meta. Raises: ResourceError."""
    written = (_zipped(out, f"{lang}.tsv.gz", map(_pair_line, some)) for lang, some in pairs.items())
    return _write(out, written, {"request": dict(request), **facts})


def read_finished(out: Path, request: Mapping[str, object]) -> dict[str, object] | None:
    """Return the meta of a finished data set that answers the same request, or None if it has to be made (again)."""
    try:
        meta = json.loads((out / META).read_bytes())
        recorded = {name: facts["sha256"] for name, facts in meta["files"].items()}
        same = meta["format"] == FORMAT and meta["request"] == json.loads(json.dumps(request))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    try:
        whole = same and all(sha256_of(out / name) == digest for name, digest in recorded.items())
    except OSError:
        return None
    return dict(meta) if whole else None


def read_meta(out: Path) -> dict[str, object]:
    """Read the meta of a finished data set. Raises: InputError when there is none."""
    try:
        return dict(json.loads((out / META).read_bytes()))
    except (OSError, ValueError):
        raise InputError("no finished data set here; run `drdecr data fetch` again", path=out) from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def naming_full_disk(place: Path) -> Iterator[None]:
    """Turn "no space left" into a ResourceError that names the place."""
    try:
        yield
    except OSError as problem:
        if is_full_disk(problem):
            raise ResourceError(
                f"the disk of {place} is full; free some space and run the same command again"
            ) from None
        raise


def _write(
    out: Path, written: Iterator[tuple[str, dict[str, object]]], facts: Mapping[str, object]
) -> dict[str, object]:
    with naming_full_disk(out):
        (out / META).unlink(missing_ok=True)
        files = dict(written)
        _remove_leftovers(out, files)
        meta = {"format": FORMAT, **facts, "files": files}
        with _replacing(out / META) as file:
            file.write(json.dumps(meta, indent=2, ensure_ascii=False).encode() + b"\n")
    return meta


def _zipped(out: Path, name: str, lines: Iterable[str]) -> tuple[str, dict[str, object]]:
    # No name and no time in the gzip header: the same data give the same bytes.
    with (
        _replacing(out / name) as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=5) as file,
    ):
        file.writelines(f"{line}\n".encode() for line in lines)
    return _entry(out, name)


def _write_all(out: Path, data: DataSet) -> Iterator[tuple[str, dict[str, object]]]:
    def plain(name: str, lines: Iterable[str]) -> tuple[str, dict[str, object]]:
        with _replacing(out / name) as file:
            file.writelines(f"{line}\n".encode() for line in lines)
        return _entry(out, name)

    yield plain("passages.jsonl", map(_passage_line, data.passages))
    yield plain("demo.passages.jsonl", map(_passage_line, data.demo))
    yield plain("train.passages.jsonl", map(_passage_line, data.train_passages))
    for side, queries in (("train", data.train), ("test", data.test)):
        yield plain(f"queries/en.{side}.tsv", (f"{one.id}\t{fold(one.english)}" for one in queries))
        for lang in data.pairs:
            yield plain(f"queries/{lang}.{side}.tsv", _query_lines(queries, lang))
        yield plain(f"qrels.{side}.trec", (f"{one.id} 0 {answer} 1" for one in queries for answer in one.answers))
    for lang, pairs in data.pairs.items():
        yield _zipped(out, f"pairs/{lang}.tsv.gz", map(_pair_line, pairs))
    # Gzip files that follow each other are one gzip file: no need to compress everything twice.
    with _replacing(out / "pairs.train.tsv.gz") as file:
        for lang in data.pairs:
            file.write((out / f"pairs/{lang}.tsv.gz").read_bytes())
    yield _entry(out, "pairs.train.tsv.gz")


def _remove_leftovers(out: Path, files: Mapping[str, object]) -> None:
    # An earlier run may have fetched more languages; what it wrote would be read as part of this data set.
    for path in (*out.glob("queries/*.tsv"), *out.glob("pairs/*.tsv.gz"), *out.glob("*.tsv.gz")):
        if path.relative_to(out).as_posix() not in files:
            path.unlink()


def _counts(data: DataSet, lang: str) -> dict[str, int]:
    return {
        "pairs": len(data.pairs[lang]),
        "train_queries": sum(lang in query.translations for query in data.train),
        "test_queries": sum(lang in query.translations for query in data.test),
    }


def _passage_line(passage: Passage) -> str:
    record: dict[str, object] = {"id": passage.id, "text": passage.text}
    if passage.title:
        record["title"] = passage.title
    if passage.metadata:
        record["metadata"] = passage.metadata
    return json.dumps(record, ensure_ascii=False)


def _query_lines(queries: Iterable[TaskQuery], lang: str) -> Iterator[str]:
    return (f"{query.id}\t{fold(query.translations[lang])}" for query in queries if lang in query.translations)


def _pair_line(pair: ParallelPair) -> str:
    return f"{pair.source}\t{fold(pair.english)}\t{fold(pair.translation)}"


def _entry(out: Path, name: str) -> tuple[str, dict[str, object]]:
    path = out / name
    return name, {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
