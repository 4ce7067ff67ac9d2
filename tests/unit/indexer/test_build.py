"""Building a snapshot: complete, deterministic, or not at all."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fabricated_vectors import WordEncoder, encoded, save_vectors

from drdecr.encoder.types import Encoded
from drdecr.errors import DrDecrError, InputError, ModelError, ResourceError, SnapshotError, UsageError
from drdecr.index import EXACT, Snapshot
from indexer import segment_writer, sources
from indexer.build import build, build_from_vectors


def passage_file(directory: Path, texts: list[str], name: str = "passages.jsonl") -> Path:
    path = directory / name
    lines = (json.dumps({"id": f"p{i}", "text": text}) for i, text in enumerate(texts))
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_build_reports_what_it_did(tmp_path: Path) -> None:
    path = passage_file(tmp_path, ["one two three", "four five", "..."])
    report = build(WordEncoder(16, 8), path, tmp_path / "snapshot")
    assert (report.passages, report.tokens, report.without_tokens, report.skipped_lines) == (3, 5, 1, 0)
    assert (
        report.size_bytes
        == sum(file.stat().st_size for file in (tmp_path / "snapshot").rglob("*") if file.is_file())
        - (tmp_path / "snapshot/manifest.json").stat().st_size
    )
    with Snapshot.open(tmp_path / "snapshot", verify=True) as snapshot:
        assert snapshot.version == report.version
        assert snapshot.search(WordEncoder(16, 8).encode(["five"], "query"), 1, EXACT)[0][0].id == "p1"


def test_title_is_encoded_with_the_text(tmp_path: Path) -> None:
    path = tmp_path / "passages.tsv"
    path.write_text("id\ttext\ttitle\na\tthe layout\tKeyboard\nb\tthe mouse\tPointer\n")
    build(WordEncoder(), path, tmp_path / "snapshot")
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        assert snapshot.search(WordEncoder().encode(["keyboard"], "query"), 1, EXACT)[0][0].id == "a"


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = passage_file(tmp_path, [f"word{i} word{i % 7} common" for i in range(300)])
    first = build(WordEncoder(16, 8), path, tmp_path / "first")
    second = build(WordEncoder(16, 8), path, tmp_path / "second")
    assert first.version == second.version


def test_corpus_of_many_chunks_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CHUNK_PASSAGES", 7)
    monkeypatch.setattr(sources, "_READ_PASSAGES", 5)
    monkeypatch.setattr(segment_writer, "_CHUNK_VECTORS", 11)
    texts = [f"word{i} middle{i % 3} tail{i}" for i in range(50)]
    encoder = WordEncoder(16, 8)
    build(encoder, passage_file(tmp_path, texts), tmp_path / "snapshot")
    assert max(encoder.calls) == 7
    with Snapshot.open(tmp_path / "snapshot", verify=True) as snapshot:
        for i, text in enumerate(texts):
            expected = encoder.encode([text], "passage").vectors.astype(np.float16).astype(np.float32)
            assert np.array_equal(snapshot.vectors_of(i), expected)
            hit = snapshot.search(encoder.encode([text], "query"), 1, EXACT)[0][0]
            assert (hit.id, hit.position) == (f"p{i}", i)


def test_empty_passage_file_gives_an_empty_snapshot(tmp_path: Path) -> None:
    report = build(WordEncoder(16, 8), passage_file(tmp_path, []), tmp_path / "snapshot")
    assert report.passages == 0
    with Snapshot.open(tmp_path / "snapshot", verify=True) as snapshot:
        assert snapshot.search(WordEncoder(16, 8).encode(["word"], "query"), 10) == [[]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json\n", "not JSON"),
        (b'{"id": "p0", "text": "again"}\n', "appears a second time"),
        (b'{"id": "x", "text": " "}\n', "empty"),
        (b'{"id": "x", "text": "caf\xe9"}\n', "not UTF-8"),
    ],
)
def test_bad_line_is_named_and_leaves_nothing_behind(tmp_path: Path, line: bytes, message: str) -> None:
    path = passage_file(tmp_path, ["one", "two"])
    path.write_bytes(path.read_bytes() + line + b'{"id": "p9", "text": "nine"}\n')
    encoder = WordEncoder()
    with pytest.raises(InputError, match=message) as caught:
        build(encoder, path, tmp_path / "snapshot")
    assert "passages.jsonl:3:" in str(caught.value)
    assert names_in(tmp_path) == {"passages.jsonl"}
    assert encoder.calls == []

    report = build(encoder, path, tmp_path / "snapshot", skip_bad_lines=True)
    assert (report.passages, report.skipped_lines) == (3, 1)
    assert message in report.skipped_messages[0]


def test_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    path = passage_file(tmp_path, ["one"])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/precious").write_text("x")
    for force in (False, True):
        with pytest.raises(UsageError, match="choose another --out"):
            build(WordEncoder(), path, tmp_path / "taken", force=force)
    assert (tmp_path / "taken/precious").read_text() == "x"


def test_force_replaces_a_snapshot_and_its_readers_keep_the_old_one(tmp_path: Path) -> None:
    encoder = WordEncoder()
    build(encoder, passage_file(tmp_path, ["old words"]), tmp_path / "snapshot")
    with pytest.raises(UsageError, match="--force"):
        build(encoder, passage_file(tmp_path, ["new"]), tmp_path / "snapshot")
    with Snapshot.open(tmp_path / "snapshot") as old:
        build(encoder, passage_file(tmp_path, ["new things", "more"]), tmp_path / "snapshot", force=True)
        assert old.search(encoder.encode(["old"], "query"), 1)[0][0].score == pytest.approx(1, abs=1e-3)
        assert old.passages(["p0"])["p0"].text == "old words"
    with Snapshot.open(tmp_path / "snapshot", verify=True) as new:
        assert new.passages(["p0"])["p0"].text == "new things"
    assert names_in(tmp_path) == {"snapshot", "passages.jsonl"}


class Interrupted(WordEncoder):
    """Fails after some texts, as Ctrl-C, a full disk or a broken model does."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__()
        self._failure = failure

    def encode(self, *args: object, **options: object) -> Encoded:
        raise self._failure


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError),
        (ModelError("broken"), ModelError),
        (PermissionError(errno.EACCES, "Permission denied"), SnapshotError),
    ],
)
def test_failed_build_keeps_the_old_snapshot_and_cleans_up(
    tmp_path: Path, failure: BaseException, expected: type[BaseException]
) -> None:
    path = passage_file(tmp_path, ["one two"])
    before = build(WordEncoder(), path, tmp_path / "snapshot").version
    with pytest.raises(expected):
        build(Interrupted(failure), path, tmp_path / "snapshot", force=True)
    assert names_in(tmp_path) == {"snapshot", "passages.jsonl"}
    with Snapshot.open(tmp_path / "snapshot", verify=True) as snapshot:
        assert snapshot.version == before


def test_full_disk_is_named_whoever_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SmallDatabase(sqlite3.Connection):
        def executescript(self, script: str, /) -> sqlite3.Cursor:
            return super().executescript(script.replace("BEGIN;", "PRAGMA max_page_count=6; BEGIN;"))

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=SmallDatabase))
    path = passage_file(tmp_path, ["some words " * 100] * 100)
    with pytest.raises(ResourceError, match=r"the disk of .* is full"):
        build(WordEncoder(), path, tmp_path / "snapshot")
    assert names_in(tmp_path) == {"passages.jsonl"}


def bad_dimension(texts: Encoded) -> Encoded:
    return Encoded(texts.vectors[:, :8], texts.offsets, texts.sentences, texts.spans, texts.truncated, texts.unknown)


def not_a_number(texts: Encoded) -> Encoded:
    texts.vectors[0, 0] = np.nan
    return texts


def without_sentences(texts: Encoded) -> Encoded:
    return Encoded(texts.vectors, texts.offsets, None, texts.spans, texts.truncated, texts.unknown)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad_dimension, "expected 16"),
        (not_a_number, "not finite"),
        (without_sentences, "no sentence vectors of 8"),
    ],
)
def test_student_that_gives_unusable_vectors_is_named(
    tmp_path: Path, spoil: Callable[[Encoded], Encoded], message: str
) -> None:
    class Spoiled(WordEncoder):
        def encode(self, *args: object, **options: object) -> Encoded:
            return spoil(super().encode(*args, **options))  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=message) as caught:
        build(Spoiled(16, 8), passage_file(tmp_path, ["one two"]), tmp_path / "snapshot")
    assert "words" in str(caught.value)
    assert names_in(tmp_path) == {"passages.jsonl"}


def test_vectors_of_a_file_build_the_snapshot_of_the_student(tmp_path: Path) -> None:
    encoder = WordEncoder(16, 8)
    texts = [f"alpha{i} beta{i % 5}" for i in range(20)]
    build(encoder, passage_file(tmp_path, texts), tmp_path / "direct")
    whole = encoder.encode(texts, "passage")
    vectors = save_vectors(
        tmp_path / "v.npz",
        whole,
        spans=whole.spans,
        fingerprint=np.array(encoder.spec.fingerprint),
        sentence_weight=np.array(encoder.spec.sentence_weight),
    )
    build_from_vectors(vectors, tmp_path / "through file")
    queries = encoder.encode(["alpha3", "beta2 alpha7"], "query")
    with Snapshot.open(tmp_path / "direct") as direct, Snapshot.open(tmp_path / "through file") as other:
        other.require(encoder.spec)
        assert other.search(queries, 5, EXACT) == direct.search(queries, 5, EXACT)
        assert other.explain(queries, 3) == direct.explain(queries, 3)


def test_vector_that_is_too_large_for_its_codec_is_refused(tmp_path: Path) -> None:
    texts = encoded([2], 4)
    texts.vectors[1] = 70000
    with pytest.raises(DrDecrError, match=r"v\.npz"):
        build_from_vectors(save_vectors(tmp_path / "v.npz", texts), tmp_path / "snapshot")


def test_unknown_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be one of 2, 4, 6, 8, 16"):
        build(WordEncoder(), passage_file(tmp_path, ["one"]), tmp_path / "snapshot", bits=3)
