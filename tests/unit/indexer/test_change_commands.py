"""`drdecr index add | delete | rollback | compact | merge`, called in this process."""

from __future__ import annotations

import gzip
import json
import sys
import types
from pathlib import Path

import pytest
from changing import ENCODER, passage_file
from click.testing import CliRunner, Result
from fabricated_vectors import encoded, save_vectors

from drdecr.cli import cli
from drdecr.errors import InputError, ModelMismatchError, UsageError
from drdecr.index import Snapshot
from indexer.build import build


@pytest.fixture(autouse=True)
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = types.ModuleType("drdecr.encoder.load")
    module.load_encoder = lambda path, *, threads=None: ENCODER  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "drdecr.encoder.load", module)
    monkeypatch.chdir(tmp_path)
    build(ENCODER, passage_file(Path("passages.jsonl"), {f"p{i}": f"word{i} all" for i in range(9)}), Path("snap"))
    return tmp_path / "snap"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["index", *arguments], catch_exceptions=False, standalone_mode=False)


def add(*more: str) -> Result:
    return run("add", "snap", "--student", "student", "--passages", "new.jsonl", *more)


def test_added_and_deleted_passages_are_counted(snapshot: Path) -> None:
    passage_file(Path("new.jsonl"), {"p3": "kettle", "x": "pot"})
    assert "2 passages added, 1 of them replaced old ones; 10 passages in 2 segments, generation 2" in add().output
    assert (
        "2 passages deleted; 8 passages in 2 segments, generation 3" in run("delete", "snap", "--ids", "p1,x").output
    )
    assert "rolled back; 10 passages" in run("rollback", "snap").output
    report = json.loads(run("rollback", "snap", "--to", "1", "--json").output)
    assert (report["passages"], report["generation"]) == (9, 5)
    with Snapshot.open(snapshot, verify=True) as opened:
        assert opened.version == report["version"]


def test_bad_lines_are_counted_when_asked(snapshot: Path) -> None:
    path = passage_file(Path("new.jsonl"), {"x": "pot"})
    path.write_text(path.read_text() + "broken\n")
    with pytest.raises(InputError, match=r"new\.jsonl:2"):
        add()
    report = json.loads(add("--skip-bad-lines", "--json").output)
    assert (report["added"], report["skipped_lines"]) == (1, 1)


def test_ids_come_from_a_file(snapshot: Path) -> None:
    Path("ids.txt").write_text("p1\n\n p2 \r\nx,y\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no passage 'x,y'"):
        run("delete", "snap", "--ids-file", "ids.txt")
    printed = CliRunner().invoke(cli, ["index", "delete", "snap", "--ids-file", "ids.txt", "--missing-ok"])
    assert "2 passages deleted" in printed.output
    assert "1 ids were not there: x,y" in printed.output
    Path("ids.txt").write_bytes(gzip.compress(b"p0\n"))
    assert "1 passages deleted" in run("delete", "snap", "--ids-file", "ids.txt").output
    Path("ids.txt").write_bytes(b"p3\np\xe9\n")
    with pytest.raises(InputError, match=r"ids\.txt:2: not UTF-8"):
        run("delete", "snap", "--ids-file", "ids.txt")


def test_vectors_replace_student_and_texts(snapshot: Path) -> None:
    save_vectors(Path("v.npz"), encoded([3, 4], 16, 8))
    assert "2 of them replaced" in run("add", "snap", "--vectors", "v.npz").output
    save_vectors(Path("narrow.npz"), encoded([3, 4], 12, 8))
    with pytest.raises(ModelMismatchError, match=r"12 token.*16 token"):
        run("add", "snap", "--vectors", "narrow.npz")


def test_compacted_snapshot_is_reported(snapshot: Path) -> None:
    passage_file(Path("new.jsonl"), {"p3": "kettle"})
    add()
    assert "compacted; 9 passages in 1 segments, generation 3" in run("compact", "snap").output
    assert json.loads(run("compact", "snap", "--retrain", "--json").output)["generation"] == 4
    assert json.loads(run("compact", "snap", "--retrain", "--student", "any", "--json").output)["generation"] == 5
    with Snapshot.open(snapshot, verify=True) as opened:
        assert len(opened) == 9


def test_snapshots_are_merged(snapshot: Path) -> None:
    build(ENCODER, passage_file(Path("new.jsonl"), {"p3": "kettle", "x": "pot"}), Path("other"))
    with pytest.raises(InputError, match="--on-duplicate last"):
        run("merge", "all", "snap", "other")
    assert "all: 10 passages in 2 segments, 1 of the same id left out" in (
        run("merge", "all", "snap", "other", "--on-duplicate", "last").output
    )
    with pytest.raises(UsageError, match="exists already"):
        run("merge", "all", "snap", "other", "--on-duplicate", "last")
    report = json.loads(run("merge", "all", "other", "snap", "--on-duplicate", "last", "--force", "--json").output)
    assert (report["passages"], report["replaced"]) == (10, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["merge", "all", "snap"],
        ["compact", "snap", "--bits", "16"],
        ["compact", "snap", "--student", "student"],
        ["add", "snap"],
        ["add", "snap", "--student", "student"],
        ["add", "snap", "--passages", "passages.jsonl"],
        ["add", "snap", "--student", "student", "--vectors", "passages.jsonl"],
        ["delete", "snap"],
        ["delete", "snap", "--ids", "p1", "--ids-file", "passages.jsonl"],
    ],
)
def test_contradicting_options_are_refused(snapshot: Path, arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        run(*arguments)


@pytest.mark.parametrize("command", ["add", "delete", "rollback", "compact", "merge"])
def test_every_command_shows_an_example(command: str) -> None:
    assert f"Example: drdecr index {command}" in CliRunner().invoke(cli, ["index", command, "--help"]).output
