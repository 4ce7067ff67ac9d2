"""`drdecr index tune` and the recall estimate of `drdecr index info`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fabricated_vectors import encoded, save_vectors

from drdecr.cli import cli
from drdecr.encoder.types import Encoded
from drdecr.errors import SnapshotError, UsageError
from drdecr.index import SearchParams, Snapshot
from drdecr.index import snapshot as snapshot_module
from drdecr.index.candidates import Knobs, decide_knobs
from drdecr.index.part import SnapshotPart, merge
from drdecr.index.tuning import TUNING, read_tuning, write_tuning
from indexer import tune as tuning_module
from indexer.recall import RecallMeter
from indexer.tune import TuneReport, UnreachableRecallError, tune

PASSAGES = 900


def topical(texts: int, tokens: int, seed: int) -> Encoded:
    """Fabricate texts whose tokens lie near a few of 60 topics."""
    rng = np.random.default_rng(seed)
    made = encoded([tokens] * texts, 16, seed=seed)
    topics = np.random.default_rng(9).standard_normal((60, 16))
    chosen = np.repeat(rng.integers(0, 60, (texts, 3)), tokens, axis=0)
    vectors = topics[chosen[np.arange(len(chosen)), rng.integers(0, 3, len(chosen))]]
    vectors = vectors + 0.6 * rng.standard_normal(vectors.shape)
    made.vectors[:] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_vectors(tmp_path / "passages.npz", topical(PASSAGES, 12, 1))
    save_vectors(tmp_path / "queries.npz", topical(60, 6, 2))
    run("index", "build", "--vectors", "passages.npz", "--out", "snap")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)


def tuned(*more: str) -> Result:
    return run("index", "tune", "snap", "--vectors", "queries.npz", *more)


def test_tuned_setting_is_written_and_searched_with(home: Path) -> None:
    report = json.loads(tuned("--recall", "0.9", "--json").output)
    written = read_tuning(home / "snap")
    assert written is not None and written.model_dump(mode="json") == report["tuning"]
    assert report["written"] is True
    assert written.queries == 30
    with Snapshot.open("snap") as snapshot:
        queries = topical(60, 6, 2)
        explicit = SearchParams(written.nprobe, written.candidates)
        assert snapshot.search(queries, 10) == snapshot.search(queries, 10, explicit)
        assert written.version == snapshot.version
    assert report["after"]["recall"] >= 0.8
    told = run("index", "info", "snap").output
    assert f"nprobe {written.nprobe}, candidates {written.candidates} for k 10" in told
    assert "this version" in told
    facts = json.loads(run("index", "info", "snap", "--json").output)["tuned"]
    assert (facts["nprobe"], facts["recall"], facts["same_version"]) == (written.nprobe, written.recall, True)


def test_setting_of_another_version_still_counts_and_info_says_so(home: Path) -> None:
    tuned("--recall", "0.9")
    written = read_tuning(home / "snap")
    assert written is not None
    write_tuning(home / "snap", written.model_copy(update={"version": "0" * 64, "nprobe": 1, "candidates": 10}))
    assert "of version 000000000000; tune again" in run("index", "info", "snap").output
    with Snapshot.open("snap") as snapshot:
        queries = topical(60, 6, 2)
        assert snapshot.search(queries, 10) == snapshot.search(queries, 10, SearchParams(1, 10))


def test_chosen_setting_is_the_cheapest_step_and_each_step_reaches_the_recall(home: Path) -> None:
    report = json.loads(tuned("--recall", "0.95", "--json").output)
    steps = report["steps"]
    assert all(step["recall"] >= 0.95 for step in steps)
    assert [step["nprobe"] for step in steps] == sorted({step["nprobe"] for step in steps})
    assert [step["candidates"] for step in steps] == sorted((step["candidates"] for step in steps), reverse=True)
    cheapest = min(steps, key=lambda step: step["cpu_ms"])
    assert (report["tuning"]["nprobe"], report["tuning"]["candidates"]) == (
        cheapest["nprobe"],
        cheapest["candidates"],
    )


def test_staircase_is_the_one_that_the_whole_grid_shows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_module, "_TOO_DEAR", float("inf"))
    with Snapshot.open("snap") as snapshot:
        meter = RecallMeter(snapshot, topical(60, 6, 2), 10)
        steps = tune(snapshot, meter, 10, 0.95).steps
        choosing, _ = tuning_module._halves(meter)
        for step in steps:
            fewer = [count for count in (10, *tuning_module._CANDIDATES) if 10 <= count < step.candidates]
            for candidates in fewer[-1:]:
                assert choosing.measure(SearchParams(step.nprobe, candidates)).recall < 0.95


@pytest.fixture
def parted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot of three segments, so large that each gets other candidates, the last so small that it is exact."""
    monkeypatch.chdir(tmp_path)
    first = 0
    for seed, (passages, command) in enumerate([(12_000, "build"), (1_500, "add"), (200, "add")]):
        ids = np.array([f"p{first + i}" for i in range(passages)])
        save_vectors(tmp_path / "passages.npz", topical(passages, 2, seed), ids=ids)
        target = ("snap",) if command == "add" else ("--out", "snap")
        run("index", command, "--vectors", "passages.npz", *target)
        first += passages
    save_vectors(tmp_path / "queries.npz", topical(40, 4, 7))
    return tmp_path / "snap"


def searches_of(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> list[Knobs]:
    """Return the knobs of every search of a segment in some work, in turn."""
    found: list[Knobs] = []

    def noted(*arguments: Any) -> Knobs:
        found.append(decide_knobs(*arguments))
        return found[-1]

    monkeypatch.setattr(snapshot_module, "decide_knobs", noted)
    work()
    return found


def test_search_that_was_measured_is_the_one_that_serves(parted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Snapshot.open(parted) as snapshot:
        assert len(snapshot.segments) == 3
        queries = topical(40, 4, 7)
        meter = RecallMeter(snapshot, queries, 10)
        reports: list[TuneReport] = []
        measured = searches_of(monkeypatch, lambda: reports.append(tune(snapshot, meter, 10, 0.9)))
    write_tuning(parted, reports[0].tuning)
    with Snapshot.open(parted) as snapshot:
        served = searches_of(monkeypatch, lambda: snapshot.search(queries.select(0, 1), 10))
    assert len(set(served)) == 3
    asked = [tuple(measured[at : at + 3]) for at in range(0, len(measured), 3)]
    # The chosen setting was measured on each choosing query, and again on each judging one.
    assert asked.count(tuple(served)) >= 40


def test_parts_of_a_snapshot_search_by_the_setting_that_was_measured(parted: Path) -> None:
    tuned("--recall", "0.9")
    queries = topical(40, 4, 7)
    with Snapshot.open(parted) as snapshot:
        whole = snapshot.search(queries, 10)
        assert whole != snapshot.tuned(None).search(queries, 10)
        parts = [SnapshotPart(parted, snapshot.manifest, own, verify=False) for own in ([0], [1, 2])]
        assert merge([part.search(queries, 10, SearchParams(), None) for part in parts], 40, 10) == whole
        for part in parts:
            part.close()


def test_snapshot_without_passages_is_not_tuned(home: Path) -> None:
    (home / "ids").write_text("\n".join(f"p{at}" for at in range(PASSAGES)))
    run("index", "delete", "snap", "--ids-file", "ids")
    with pytest.raises(UsageError, match="holds no passages, so there is nothing to tune"):
        tuned()


def test_every_query_is_in_one_half(home: Path) -> None:
    with Snapshot.open("snap") as snapshot:
        queries = topical(41, 6, 3)
        halves = tuning_module._halves(RecallMeter(snapshot, queries, 10))
        seen = np.concatenate([half._queries.vectors for half in halves])
    assert {row.tobytes() for row in seen} == {row.tobytes() for row in queries.vectors}
    assert [len(half) for half in halves] == [21, 20]


def test_full_recall_is_reached(home: Path) -> None:
    report = json.loads(tuned("--recall", "1", "--json").output)
    assert all(step["recall"] == 1.0 for step in report["steps"])


def test_dry_run_writes_nothing_and_reset_forgets(home: Path) -> None:
    assert "nothing written (--dry-run)" in tuned("--dry-run").output
    assert read_tuning(home / "snap") is None
    assert "no (see `drdecr index tune`)" in run("index", "info", "snap").output
    assert "written; undo with --reset" in tuned().output
    assert run("index", "tune", "snap", "--reset").output == "snap: the tuned setting is gone\n"
    assert run("index", "tune", "snap", "--reset").output == "snap had no tuned setting\n"
    assert read_tuning(home / "snap") is None


def test_reset_gets_rid_of_a_damaged_setting(home: Path) -> None:
    tuned()
    (home / "snap" / TUNING).write_text("broken")
    assert any("tuning.json is damaged" in line for line in verify_damage())
    run("index", "tune", "snap", "--reset")
    assert run("index", "verify", "snap").output == "snap is intact\n"


def verify_damage() -> list[str]:
    printed = CliRunner().invoke(cli, ["index", "verify", "snap", "--json"], standalone_mode=False)
    return list(json.loads(printed.output)["damage"])


def test_too_few_queries_are_refused_with_the_remedy(home: Path) -> None:
    save_vectors(home / "queries.npz", topical(19, 6, 2))
    with pytest.raises(UsageError, match=r"at least 20 queries with tokens, found 19.*info --recall"):
        tuned()


def test_queries_without_tokens_do_not_count(home: Path) -> None:
    save_vectors(home / "queries.npz", encoded([0] * 30, 16))
    with pytest.raises(UsageError, match="no query with tokens"):
        tuned()
    save_vectors(home / "queries.npz", encoded([0] * 30 + [3] * 19, 16))
    with pytest.raises(UsageError, match="found 19"):
        tuned()


def test_unreachable_recall_names_the_best(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_module, "_NPROBES", (1,))
    monkeypatch.setattr(tuning_module, "_CANDIDATES", (10, 12))
    with pytest.raises(
        UnreachableRecallError, match=r"no setting reached recall 1\.0: the best was 0\.\d+ with nprobe 1"
    ):
        tuned("--recall", "1")
    assert read_tuning(home / "snap") is None


@pytest.mark.parametrize("more", [("--queries", "queries.tsv"), ("--dry-run",), ("--vectors", "queries.npz")])
def test_reset_stands_alone(home: Path, more: tuple[str, ...]) -> None:
    Path("queries.tsv").write_text("q\tword\n")
    with pytest.raises(UsageError, match="--reset measures nothing"):
        run("index", "tune", "snap", "--reset", *more)


def test_tuning_needs_queries_and_a_snapshot(home: Path) -> None:
    with pytest.raises(UsageError, match="--queries and --student, or --vectors"):
        run("index", "tune", "snap")
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        run("index", "tune", str(home), "--reset")


def test_recall_is_estimated_without_queries(home: Path) -> None:
    facts = json.loads(run("index", "info", "snap", "--recall", "--sample", "25", "--json").output)
    assert 0.8 <= facts["recall_estimate"] <= 1
    assert "25 passages in place of queries" in facts["recall_estimate_is"]
    assert facts["exact_cpu_ms_per_query"] > 0
    assert "recall_estimate" not in json.loads(run("index", "info", "snap", "--json").output)


def test_estimate_sinks_when_the_default_is_narrow(home: Path) -> None:
    before = json.loads(run("index", "info", "snap", "--recall", "--json").output)["recall_estimate"]
    tuned("--recall", "0.3")
    after = json.loads(run("index", "info", "snap", "--recall", "--json").output)["recall_estimate"]
    assert after < before


def test_snapshot_without_tokens_has_nothing_to_estimate(tmp_path: Path) -> None:
    save_vectors(tmp_path / "v.npz", encoded([0, 0], 16))
    run("index", "build", "--vectors", str(tmp_path / "v.npz"), "--out", str(tmp_path / "snap"))
    with pytest.raises(UsageError, match="no passage with token vectors"):
        run("index", "info", str(tmp_path / "snap"), "--recall")
