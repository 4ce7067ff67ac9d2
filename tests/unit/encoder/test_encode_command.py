"""`drdecr encode` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from drdecr.encoder.commands import encode, write_vectors
from drdecr.encoder.load import load_encoder
from drdecr.encoder.windows import Windowed, encode_windows
from drdecr.errors import InputError, UsageError

PASSAGES = [{"id": "p1", "text": "A text.", "title": "Title"}, {"id": "p2", "text": "word1 " * 200}]


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.tsv"
    path.write_text("q1\thello world\nq2\tпривет\n", encoding="utf-8")
    return path


def run(*arguments: object) -> str:
    outcome = CliRunner().invoke(encode, [str(argument) for argument in arguments], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_queries_become_arrays_that_equal_the_encoder(tiny_student: Path, queries: Path, tmp_path: Path) -> None:
    out = tmp_path / "queries.npz"
    run(tiny_student, "--kind", "query", "--input", queries, "--out", out, "--threads", 1)
    encoder = load_encoder(tiny_student, threads=1)
    expected = encoder.encode(["hello world", "привет"], "query")
    with np.load(out) as arrays:
        assert arrays["ids"].tolist() == ["q1", "q2"]
        assert np.array_equal(arrays["vectors"], expected.vectors)
        assert np.array_equal(arrays["offsets"], expected.offsets)
        assert np.array_equal(arrays["sentences"], expected.sentences)
        assert np.array_equal(arrays["spans"], expected.spans)
        assert arrays["fingerprint"].item() == encoder.spec.fingerprint
        assert arrays["sentence_weight"].item() == encoder.spec.sentence_weight
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queries.npz", "queries.tsv"]


def test_passages_are_read_with_their_title_and_cuts_are_told(another_student: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "passages.jsonl", tmp_path / "passages.npz"
    source.write_text("".join(json.dumps(passage) + "\n" for passage in PASSAGES))
    printed = run(another_student, "--kind", "passage", "--input", source, "--out", out, "--json")
    assert json.loads(printed.splitlines()[-1])["truncated"] == 1
    assert "cut" in printed
    expected = load_encoder(another_student, threads=1).encode(["Title: A text."], "passage")
    with np.load(out) as arrays:
        assert "sentences" not in arrays
        assert np.allclose(arrays["vectors"][: len(expected.vectors)], expected.vectors, atol=1e-5)


def test_windows_hold_the_ends_of_long_passages(tiny_student: Path, tmp_path: Path) -> None:
    texts = ["short", "a long text " * 40, "also short"]
    source, out = tmp_path / "passages.jsonl", tmp_path / "passages.npz"
    source.write_text("".join(json.dumps({"id": str(at), "text": text}) + "\n" for at, text in enumerate(texts)))
    printed = run(tiny_student, "--kind", "passage", "--input", source, "--out", out, "--windows", "--json")
    expected = encode_windows(load_encoder(tiny_student, threads=1), texts)
    result = json.loads(printed.splitlines()[-1])
    assert (result["truncated"], result["windows"]) == (0, len(expected.windows))
    with np.load(out) as arrays:
        assert arrays["windows"].tolist() == expected.bounds.tolist() != [0, 1, 2, 3]
        assert arrays["window_offsets"].tolist() == expected.windows.offsets.tolist()
        assert arrays["offsets"].tolist() == expected.offsets.tolist()
        assert np.allclose(arrays["vectors"], expected.windows.vectors, atol=1e-5)
        assert np.allclose(arrays["sentences"], expected.windows.sentences, atol=1e-5)
        assert arrays["spans"].max() == len(texts[1].rstrip())


def test_windows_of_queries_are_refused(tiny_student: Path, queries: Path, tmp_path: Path) -> None:
    arguments = (tiny_student, "--kind", "query", "--input", queries, "--out", tmp_path / "out.npz", "--windows")
    done = CliRunner().invoke(encode, [str(argument) for argument in arguments])
    assert isinstance(done.exception, UsageError)
    assert "only passages have windows" in str(done.exception)


def test_empty_file_gives_empty_arrays(tiny_student: Path, tmp_path: Path) -> None:
    (tmp_path / "none.tsv").touch()
    run(tiny_student, "--kind", "query", "--input", tmp_path / "none.tsv", "--out", tmp_path / "none.npz")
    with np.load(tmp_path / "none.npz") as arrays:
        assert (arrays["vectors"].shape, arrays["offsets"].tolist(), len(arrays["ids"])) == ((0, 16), [0], 0)


def test_bad_line_stops_before_anything_is_written(tiny_student: Path, queries: Path, tmp_path: Path) -> None:
    queries.write_text("q1\thello\nno tab here\n")
    out = tmp_path / "out.npz"
    with pytest.raises(InputError, match=r"queries\.tsv:2"):
        run(tiny_student, "--kind", "query", "--input", queries, "--out", out)
    assert not out.exists()
    printed = run(tiny_student, "--kind", "query", "--input", queries, "--out", out, "--skip-bad-lines", "--json")
    assert json.loads(printed.splitlines()[-1])["skipped_lines"] == 1


def test_missing_output_directory_is_told_before_encoding(tiny_student: Path, queries: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        run(tiny_student, "--kind", "query", "--input", queries, "--out", tmp_path / "absent" / "out.npz")
    with pytest.raises(UsageError, match="is a directory"):
        run(tiny_student, "--kind", "query", "--input", queries, "--out", tmp_path)


def test_failed_write_leaves_the_older_file(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out.npz"
    out.write_bytes(b"older")
    encoder = load_encoder(tiny_student, threads=1)
    encoded = Windowed.whole(encoder.encode(["hello"], "query"))
    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_vectors(out, encoded, ["q1"], encoder.spec)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
    assert out.read_bytes() == b"older"
