"""Filters, effort and tuning as users meet them: `drdecr` as a program, and a service over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from service_process import running_service
from test_index_programs import assert_fails_with_one_line, drdecr

COLOURS = ("red", "green", "blue")
SEARCH = "/v1/indexes/things/search"


@pytest.fixture(scope="module")
def home(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("filtered")
    with (home / "passages.jsonl").open("w", encoding="utf-8") as file:
        for i in range(400):
            metadata = {"colour": COLOURS[i % 3], "made": {"on": f"20{10 + i % 15}-05-01"}, "tags": [f"t{i % 7}"]}
            file.write(
                json.dumps({"id": f"p{i}", "text": f"thing {i} of kind {i % 11}", "metadata": metadata}) + "\n"
            )
    (home / "queries.tsv").write_text("".join(f"q{i}\tthing of kind {i}\n" for i in range(24)))
    built = drdecr(
        "index", "build", "--student", tiny_student, "--passages", "passages.jsonl", "--out", "snap", cwd=home
    )
    assert built.returncode == 0, built.stderr
    return home


def search(home: Path, student: Path, *more: str) -> dict[str, list[dict[str, Any]]]:
    arguments = ("search", "snap", "--student", student, "--queries", "queries.tsv", "--json", *more)
    done = drdecr(*arguments, cwd=home)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["results"])


def test_search_keeps_what_passes(home: Path, tiny_student: Path) -> None:
    wanted = {"must": [{"field": "colour", "eq": "red"}, {"field": "made.on", "range": {"lt": "2012"}}]}
    (home / "filter.json").write_text(json.dumps(wanted))
    inline = search(home, tiny_student, "--filter", json.dumps(wanted))
    assert inline == search(home, tiny_student, "--filter", "@filter.json", "--effort", "thorough")
    expected = {f"p{i}" for i in range(400) if i % 3 == 0 and i % 15 < 2}
    assert all({hit["id"] for hit in hits} == expected for hits in inline.values())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('{"must": [{"field": "a", "range": {"gt": 1, "lt": "x"}}]}', ("filter.must[0].range", "both bounds")),
        ('{"must": ', ("--filter is not JSON",)),
        ("@absent.json", ("--filter", "absent.json", "No such file")),
        ("[" * 5000, ("--filter",)),
    ],
)
def test_wrong_filter_is_one_line_and_bad_usage(
    home: Path, tiny_student: Path, given: str, words: tuple[str, ...]
) -> None:
    done = drdecr(
        "search", "snap", "--student", tiny_student, "--queries", "queries.tsv", "--filter", given, cwd=home
    )
    assert_fails_with_one_line(done, 2, *words)


def test_service_answers_with_filters_and_with_a_tuned_snapshot(home: Path, tiny_student: Path) -> None:
    arguments = ("index", "tune", "snap", "--student", tiny_student, "--queries", "queries.tsv", "--recall", "0.9")
    done = drdecr(*arguments, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "written" in done.stdout
    assert drdecr("index", "verify", "snap", cwd=home).returncode == 0
    assert "recall estimate" in drdecr("index", "info", "snap", "--recall", cwd=home).stdout
    with running_service(home / "log", "--student", tiny_student, "--index", f"things={home / 'snap'}") as service:
        wanted = {"must": [{"field": "tags", "in": ["t3", "t5"]}], "must_not": [{"field": "colour", "eq": "blue"}]}
        body = {"query": "thing of kind 4", "k": 1000, "filter": wanted, "params": {"effort": "thorough"}}
        answer = service.client.post(SEARCH, json=body)
        assert answer.status_code == 200
        found = {hit["id"]: hit["metadata"] for hit in answer.json()["hits"]}
        assert set(found) == {f"p{i}" for i in range(400) if i % 7 in (3, 5) and i % 3 != 2}
        assert found["p3"] == {"colour": "red", "made": {"on": "2013-05-01"}, "tags": ["t3"]}
        again = service.client.post(SEARCH, json=body).json()["hits"]
        assert again == answer.json()["hits"]
        none = service.client.post(SEARCH, json={**body, "filter": {"must": [{"field": "colour", "eq": 1}]}})
        assert none.json()["hits"] == []
        wrong = service.client.post(SEARCH, json={**body, "filter": {"must": [{"field": "colour"}]}})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/filter/must/0")
        assert wrong.headers["content-type"] == "application/problem+json"
    assert drdecr("index", "tune", "snap", "--reset", cwd=home).returncode == 0


def test_tuning_with_too_few_queries_is_bad_usage(home: Path, tiny_student: Path) -> None:
    (home / "few.tsv").write_text("q1\tthing\n")
    done = drdecr("index", "tune", "snap", "--student", tiny_student, "--queries", "few.tsv", cwd=home)
    assert_fails_with_one_line(done, 2, "at least 20 queries", "found 1")
