"""`drdecr evaluate` with a two-stage teacher beside the student."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated_data_set import make_data_set
from fabricated_student import make_student

from drdecr import cli
from drdecr.encoder.load import load_encoder
from indexer.build import build

Program = Callable[..., int]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a student and a teacher with a snapshot each; both know words by their letters."""
    root = tmp_path_factory.mktemp("home")
    make_data_set(root / "data", ("de", "ru"))
    for name, seed in (("student", 0), ("teacher", 1)):
        place = root / name / "student"
        make_student(place, dim=16, sentence_dim=0, seed=seed)
        build(load_encoder(place), root / "data" / "demo.passages.jsonl", root / name / "snapshot")
    return root


@pytest.fixture
def evaluate(home: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    def call(*more: str | Path) -> int:
        asked = [f"--queries={home}/data/queries/{lang}.test.tsv" for lang in ("de", "ru")]
        arguments = [
            "--snapshot",
            home / "student" / "snapshot",
            "--qrels",
            home / "data" / "qrels.test.trec",
            *asked,
        ]
        monkeypatch.setattr(sys, "argv", ["drdecr", "evaluate", *map(str, (*arguments, *more))])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return call


def test_teacher_with_human_translations_is_scored_beside_the_student(
    home: Path, evaluate: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    translator = f"human:{home}/data/queries/en.test.tsv"
    snapshot = ["--teacher-snapshot", home / "teacher" / "snapshot"]
    assert evaluate("--translator", translator, *snapshot, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["teacher"]["name"] == "human (en.test.tsv) + student"
    assert result["teacher"]["queries"] == result["student"]["queries"] == {"de": 36, "ru": 36}
    # The teacher reads the same English whatever the language was, the student cannot read Russian letters.
    teacher, student = (result[name]["scores"] for name in ("teacher", "student"))
    assert teacher["de"] == teacher["ru"]
    assert teacher["ru"]["success@1"] > student["ru"]["success@1"] + 0.3
    for name in ("teacher", "student"):
        costs = result[name]["cost_ms"]
        assert costs["encode"] > 0 and costs["search"] > 0
        assert costs["total"] == pytest.approx(costs["encode"] + costs["search"])
    assert result["teacher"]["cost_ms"]["translate"] is None

    assert evaluate("--translator", translator, *snapshot) == 0
    printed = capsys.readouterr().out
    assert "student: student" in printed and "teacher: human (en.test.tsv) + student" in printed
    assert printed.count("mrr@10") == 2 and "ms a query" in printed and "translate" in printed


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--translator", "human:x"], "a two-stage teacher is --translator and --teacher-snapshot"),
        (["--translator", "x", "--teacher-snapshot", "{home}/teacher/snapshot"], "expected human:FILE"),
        (["--teacher", "{home}/teacher/student"], "a two-stage teacher is --translator and --teacher-snapshot"),
    ],
)
def test_teacher_that_is_named_in_part_is_refused(
    more: list[str], named: str, home: Path, evaluate: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*(one.replace("{home}", str(home)) for one in more)) == 2
    assert named in capsys.readouterr().err
