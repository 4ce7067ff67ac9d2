"""`drdecr evaluate` as a program: on runs, on a snapshot, and on the files of XOR-TyDi."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drdecr.corpus import read_queries
from training.evaluation.measures import MEASURES

DRDECR = [sys.executable, "-c", "from drdecr.cli import main; main()"]


def drdecr(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DRDECR, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def evaluated(*arguments: str, cwd: Path) -> dict[str, object]:
    done = drdecr("evaluate", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "qrels.trec").write_text("q1 0 a 1\nq2 0 b 1\nq3 0 c 1\n")
    (tmp_path / "de.run.trec").write_text("q1 Q0 a 1 2.0 x\nq2 Q0 a 1 2.0 x\nq2 Q0 b 2 1.0 x\n")
    (tmp_path / "de.queries.tsv").write_text("q1\teins\nq2\tzwei\n")
    (tmp_path / "passages.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "text": f"The {word} hill."}) + "\n"
            for name, word in zip("abc", ("red", "old", "big"), strict=True)
        )
    )
    (tmp_path / "gold.jsonl").write_text(
        "".join(
            json.dumps({"id": f"q{n}", "lang": "de", "answers": [word]}) + "\n"
            for n, word in enumerate(("red", "old", "big"), start=1)
        )
    )
    return tmp_path


def test_missing_package_is_named_with_what_brings_it(home: Path) -> None:
    blocked = "import sys; sys.modules['ir_measures'] = None; from drdecr.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", blocked, "evaluate", "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "drdecr: this needs the package ir_measures: pip install 'drdecr[train]'\n"


def test_run_is_scored_over_every_judged_query(home: Path) -> None:
    result = evaluated("--run", "de.run.trec", "--qrels", "qrels.trec", cwd=home)
    assert result["queries"] == {"de": 3}
    scores = result["scores"]
    assert isinstance(scores, dict)
    assert tuple(scores["de"]) == MEASURES
    assert scores["de"]["success@1"] == pytest.approx(1 / 3)
    assert scores["de"]["mrr@10"] == pytest.approx(0.5)


def test_queries_narrow_a_run_whose_judgments_cover_more(home: Path) -> None:
    result = evaluated("--run", "de.run.trec", "--qrels", "qrels.trec", "--queries", "de.queries.tsv", cwd=home)
    assert result["queries"] == {"de": 2}
    assert result["mean"]["success@10"] == 1.0  # type: ignore[index]


def test_a_row_for_each_run_and_their_mean(home: Path) -> None:
    shutil.copy(home / "de.run.trec", home / "ja.run.trec")
    done = drdecr("evaluate", "--run", "de.run.trec", "--run", "ja.run.trec", "--qrels", "qrels.trec", cwd=home)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["de", "ja", "mean"]


def test_queries_of_one_file_are_parted_by_the_language_they_name(home: Path) -> None:
    lines = [{"id": "q1", "text": "eins", "lang": "de"}, {"id": "q2", "text": "ni", "lang": "ja"}]
    (home / "mixed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = evaluated("--run", "de.run.trec", "--qrels", "qrels.trec", "--queries", "mixed.jsonl", cwd=home)
    assert result["queries"] == {"de": 1, "ja": 1}


def test_snapshot_is_asked_with_the_student_beside_it(home: Path, tiny_student: Path) -> None:
    shutil.copytree(tiny_student, home / "student")
    built = drdecr(
        "index", "build", "--student", "student", "--passages", "passages.jsonl", "--out", "snap", cwd=home
    )
    assert built.returncode == 0, built.stderr
    (home / "en.tsv").write_text("q1\tThe red hill.\nq2\tThe old hill.\nq3\tThe big hill.\n")
    result = evaluated("--snapshot", "snap", "--queries", "en.tsv", "--qrels", "qrels.trec", cwd=home)
    assert result["mean"]["success@10"] == 1.0  # type: ignore[index]
    searched = drdecr("search", "snap", "--student", "student", "--queries", "en.tsv", "--run", "en.trec", cwd=home)
    assert searched.returncode == 0, searched.stderr
    assert evaluated("--run", "en.trec", "--qrels", "qrels.trec", cwd=home)["mean"] == result["mean"]
    xor = evaluated("--snapshot", "snap", "--queries", "en.tsv", "--xor-answers", "gold.jsonl", cwd=home)
    assert xor["scores"]["R@2kt"]["mean"] == 100.0  # type: ignore[index]
    assert [query.id for query in read_queries(home / "en.tsv")] == ["q1", "q2", "q3"]


def test_xor_figures_come_from_a_run_or_from_predictions(home: Path) -> None:
    (home / "predictions.json").write_text(
        json.dumps(
            [
                {"id": "q1", "lang": "de", "ctxs": ["The red hill."]},
                {"id": "q2", "lang": "de", "ctxs": ["The old hill."]},
            ]
        )
    )
    by_file = evaluated("--xor-predictions", "predictions.json", "--xor-answers", "gold.jsonl", cwd=home)
    by_run = evaluated(
        "--run", "de.run.trec", "--passages", "passages.jsonl", "--xor-answers", "gold.jsonl", cwd=home
    )
    assert by_file == by_run
    scores = by_run["scores"]
    assert isinstance(scores, dict)
    assert scores["R@5kt"]["mean"] == 100.0
    assert scores["R@5kt-corrected"]["mean"] == pytest.approx(200 / 3)
    table = drdecr(
        "evaluate", "--xor-predictions", "predictions.json", "--xor-answers", "gold.jsonl", cwd=home
    ).stdout
    assert "R@2kt-corrected    66.67   66.67          3" in table


@pytest.mark.parametrize(
    "arguments",
    [
        ["--qrels", "qrels.trec"],
        ["--run", "de.run.trec"],
        ["--run", "de.run.trec", "--snapshot", ".", "--qrels", "qrels.trec"],
        ["--snapshot", ".", "--qrels", "qrels.trec"],
        ["--snapshot", ".", "--queries", "de.queries.tsv", "--qrels", "qrels.trec"],
        ["--xor-predictions", "gold.jsonl"],
        ["--run", "de.run.trec", "--xor-answers", "gold.jsonl"],
        ["--run", "de.run.trec", "--run", "de.run.trec", "--qrels", "qrels.trec"],
        ["--run", "de.run.trec", "--qrels", "qrels.trec", "--k", "0"],
        ["--run", "none.trec", "--qrels", "qrels.trec"],
        ["--xor-predictions", "gold.jsonl", "--xor-answers", "gold.jsonl", "--queries", "de.queries.tsv"],
    ],
)
def test_bad_usage_exits_with_2(home: Path, arguments: list[str]) -> None:
    done = drdecr("evaluate", *arguments, cwd=home)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_file_without_queries_is_named_and_does_not_widen_the_run(home: Path) -> None:
    (home / "ja.tsv").write_text("\n")
    for more in ([], ["--queries", "de.queries.tsv"]):
        done = drdecr(
            "evaluate", "--run", "de.run.trec", "--qrels", "qrels.trec", "--queries", "ja.tsv", *more, cwd=home
        )
        assert done.returncode == 1
        assert "ja.tsv: holds no queries" in done.stderr


def test_judgments_of_other_queries_are_named(home: Path) -> None:
    (home / "other.trec").write_text("z 0 a 1\n")
    done = drdecr("evaluate", "--run", "de.run.trec", "--qrels", "other.trec", cwd=home)
    assert done.returncode == 1
    assert "other.trec: judges none of the queries of de" in done.stderr
    assert "Traceback" not in done.stderr


def test_queries_without_judgments_are_told(home: Path) -> None:
    (home / "de.queries.tsv").write_text("q1\teins\nstranger\tzwei\n")
    done = drdecr(
        "evaluate", "--run", "de.run.trec", "--qrels", "qrels.trec", "--queries", "de.queries.tsv", cwd=home
    )
    assert done.returncode == 0
    assert "queries without judgments, left out: 1" in done.stderr
