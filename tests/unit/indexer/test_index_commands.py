"""`drdecr index` and `drdecr search`, called in this process."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fabricated_vectors import WordEncoder, encoded, save_vectors

from drdecr.cli import cli
from drdecr.corpus import read_run
from drdecr.errors import InputError, ModelMismatchError, ResourceError, SnapshotCorruptError, UsageError

STUDENTS = {"student": WordEncoder(16, 8), "wide": WordEncoder(24, 8), "twin": WordEncoder(16, 8, name="twin")}


@pytest.fixture(autouse=True)
def fake_students(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("drdecr.encoder.load")
    module.load_encoder = lambda path, *, threads=None: STUDENTS[Path(path).name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "drdecr.encoder.load", module)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [{"id": f"p{i}", "text": f"word{i} word{i + 1} all"} for i in range(30)]
    Path("passages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("queries.tsv").write_text("q1\tword3\nq2\tword7 word8\nq3\t...\n")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)


def build(*more: str) -> Result:
    return run("index", "build", "--student", "student", "--passages", "passages.jsonl", "--out", "snap", *more)


def test_built_snapshot_is_searched(files: Path) -> None:
    assert "30 passages, 90 token vectors" in build().output
    printed = run(
        "search", "snap", "--student", "student", "--queries", "queries.tsv", "--run", "out.trec", "--k", "5"
    )
    assert "out.trec: 3 queries, 10 hits" in printed.output
    found = read_run("out.trec")
    assert set(found) == {"q1", "q2"}
    assert max(found["q2"], key=lambda passage: found["q2"][passage]) == "p7"
    assert {path.name for path in files.iterdir()} == {"passages.jsonl", "queries.tsv", "snap", "out.trec"}


def test_smaller_snapshot_is_built_told_and_searched_with_whole_queries(files: Path) -> None:
    build("--dims", "8", "--pool", "1.5")
    facts = json.loads(run("index", "info", "snap", "--json").output)
    assert (facts["dim"], facts["dims"], facts["pool"], facts["format_version"]) == (16, 8, 1.5, 2)
    assert facts["token_vectors"] == 60
    assert json.loads(run("index", "info", "snap", "--recall", "--json").output)["recall_estimate"] == 1
    asked = STUDENTS["student"].encode(["word3", "word7 word8"], "query")
    spec = STUDENTS["student"].spec
    save_vectors(Path("queries.npz"), asked, fingerprint=spec.fingerprint, sentence_weight=spec.sentence_weight)
    run("search", "snap", "--vectors", "queries.npz", "--run", "vectors.trec", "--k", "3")
    run("search", "snap", "--student", "student", "--queries", "queries.tsv", "--run", "student.trec", "--k", "3")
    by_vectors, by_student = read_run("vectors.trec"), read_run("student.trec")
    assert list(by_vectors.values()) == list(by_student.values()) and len(by_student) == 2
    with pytest.raises(UsageError, match="dims must be 1 to 16, the dimensions of words; got 32"):
        build("--dims", "32", "--force")


def test_run_goes_to_stdout_without_a_file(files: Path) -> None:
    build()
    lines = run("search", "snap", "--student", "student", "--queries", "queries.tsv", "--k", "2").output.splitlines()
    assert len(lines) == 4
    query, q0, passage, rank, score, tag = lines[2].split()
    assert (query, q0, passage, rank, tag) == ("q2", "Q0", "p7", "1", "drdecr")
    assert float(score) > 1


def test_json_holds_the_hits(files: Path) -> None:
    report = json.loads(build("--json").output)
    record = json.loads(
        run("search", "snap", "--student", "student", "--queries", "queries.tsv", "--k", "1", "--json").output
    )
    assert record["index_version"] == report["version"]
    assert record["results"]["q2"][0]["id"] == "p7"
    assert record["results"]["q3"] == []
    assert (record["queries"], record["hits"]) == (3, 2)


def test_vectors_replace_student_and_texts(files: Path) -> None:
    save_vectors(files / "passages.npz", encoded([3, 4], 16))
    save_vectors(files / "queries.npz", encoded([2], 16, seed=1))
    run("index", "build", "--vectors", "passages.npz", "--out", "snap")
    record = json.loads(run("search", "snap", "--vectors", "queries.npz", "--json").output)
    assert len(record["results"]["p0"]) == 2
    with pytest.raises(InputError, match="other query ids"):
        run("search", "snap", "--vectors", "queries.npz", "--queries", "queries.tsv")
    save_vectors(files / "narrow.npz", encoded([2], 12))
    with pytest.raises(ModelMismatchError, match=r"12 token.*16 token"):
        run("search", "snap", "--vectors", "narrow.npz")


@pytest.mark.parametrize(("student", "message"), [("wide", "24 token"), ("twin", "fingerprint")])
def test_wrong_student_is_refused_before_any_search(files: Path, student: str, message: str) -> None:
    build()
    with pytest.raises(ModelMismatchError, match=message):
        run("search", "snap", "--student", student, "--queries", "queries.tsv", "--run", "out.trec")
    assert not (files / "out.trec").exists()


def test_bad_lines_are_counted_when_asked(files: Path) -> None:
    with Path("passages.jsonl").open("a") as file:
        file.write("broken\n")
    with pytest.raises(InputError, match=r"passages\.jsonl:31"):
        build()
    assert json.loads(build("--skip-bad-lines", "--json").output)["skipped_lines"] == 1
    assert "1 bad lines were skipped" in build("--skip-bad-lines", "--force").output


def test_verify_names_the_damaged_file(files: Path) -> None:
    build()
    assert run("index", "verify", "snap").output == "snap is intact\n"
    file = Path("snap/segments/000001/codes.npy")
    data = bytearray(file.read_bytes())
    data[-9] ^= 4
    file.write_bytes(data)
    with pytest.raises(SnapshotCorruptError, match=r"codes\.npy has other contents"):
        run("index", "verify", "snap")
    printed = CliRunner().invoke(cli, ["index", "verify", "snap", "--json"], standalone_mode=False)
    assert json.loads(printed.output)["intact"] is False
    assert isinstance(printed.exception, SnapshotCorruptError)


def test_info_tells_sizes_and_the_student(files: Path) -> None:
    build()
    facts = json.loads(run("index", "info", "snap", "--json").output)
    assert (facts["passages"], facts["token_vectors"], facts["codec"]) == (30, 90, "fp16 (16 bits)")
    assert facts["fingerprint"] == STUDENTS["student"].spec.fingerprint
    written = (path for path in Path("snap").rglob("*") if path.is_file() and path.name != "manifest.json")
    files_bytes = sum(path.stat().st_size for path in written)
    assert facts["size_bytes"] == files_bytes
    assert STUDENTS["student"].spec.fingerprint in run("index", "info", "snap").output


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "build", "--out", "snap"],
        ["index", "build", "--out", "snap", "--student", "student"],
        ["index", "build", "--out", "snap", "--student", "student", "--vectors", "passages.jsonl"],
        [
            "index",
            "build",
            "--out",
            "snap",
            "--student",
            "s",
            "--passages",
            "passages.jsonl",
            "--sentence-weight",
            "1",
        ],
    ],
)
def test_contradicting_options_are_refused(files: Path, arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        run(*arguments)
    assert not (files / "snap").exists()


def test_search_needs_something_to_search_with(files: Path) -> None:
    build()
    with pytest.raises(UsageError, match="--queries and --student"):
        run("search", "snap", "--queries", "queries.tsv")
    with pytest.raises(UsageError, match="one or the other"):
        run("search", "snap", "--vectors", "queries.tsv", "--student", "student")


def test_unwritable_run_is_named(files: Path) -> None:
    build()
    with pytest.raises(ResourceError, match=r"absent/out\.trec cannot be written"):
        run("search", "snap", "--student", "student", "--queries", "queries.tsv", "--run", "absent/out.trec")


def test_failed_search_leaves_the_old_run(files: Path) -> None:
    build()
    Path("out.trec").write_text("old")
    np.savez(
        "queries.npz",
        vectors=np.full((1, 16), np.nan, np.float32),
        offsets=[0, 1],
        ids=["q"],
        sentences=np.zeros((1, 8)),
    )
    with pytest.raises(InputError, match="not finite"):
        run("search", "snap", "--vectors", "queries.npz", "--run", "out.trec")
    assert Path("out.trec").read_text() == "old"
    assert not list(files.glob(".out*"))


@pytest.mark.parametrize(
    "command", [["index"], ["index", "build"], ["index", "verify"], ["index", "info"], ["index", "tune"], ["search"]]
)
def test_every_command_shows_an_example(command: list[str]) -> None:
    assert "Example: drdecr" in CliRunner().invoke(cli, [*command, "--help"]).output
