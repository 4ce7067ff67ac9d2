"""The main job's steps, with fakes in place of what takes minutes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated_data_set import make_data_set
from fabricated_student import make_student

from drdecr import cli
from drdecr.errors import DrDecrError, FetchError, ResourceError
from drdecr.index import Snapshot
from training import demo_steps, quickstart
from training.demo_steps import build_index, check_port, serve_forever
from training.quickstart import Quickstart
from training.recipe import Recipe
from training.run_directory import claim


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


class Fakes:
    """Stands in for the long steps and counts how often each was done."""

    def __init__(self, student: Path) -> None:
        self.student = student
        self.done: list[str] = []
        self.recipes: list[Recipe] = []
        self.debian: Exception | None = None

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(demo_steps, "fetch_homeassistant", self.fetch)
        patch.setattr(demo_steps, "fetch_debian", self.fetch_debian)
        patch.setattr(quickstart, "run_recipe", self.train)
        patch.setattr(quickstart, "export_onnx", self.export)
        patch.setattr(quickstart, "_score_torch", lambda *_, **__: self.score("torch"))
        patch.setattr(quickstart, "_score_served", lambda *_: self.score("served"))
        patch.setattr(demo_steps.shutil, "which", lambda _: "/usr/bin/apt-get")

    def fetch(self, out: Path, languages: tuple[str, ...]) -> None:
        self.done.append(f"fetch {out.name}")
        if not (out / "meta.json").is_file():
            make_data_set(out, ("de", "ru"))
            self._more_queries(out)

    def fetch_debian(self, out: Path, languages: tuple[str, ...]) -> None:
        if self.debian is not None:
            raise self.debian
        self.fetch(out, languages)

    def train(self, recipe: Recipe, out: Path, *, resume: bool, say: Any) -> Path:
        assert resume
        self.done.append("train")
        self.recipes.append(recipe)
        shutil.copytree(self.student, out / "student", dirs_exist_ok=True)
        return out / "student"

    def export(self, student: Path, *, judged: Any) -> None:
        self.done.append("export")
        assert {query.id for query in judged.queries} >= set(judged.qrels)
        wanted = {answer for grades in judged.qrels.values() for answer in grades}
        assert wanted <= {passage.id for passage in judged.passages}

    def score(self, how: str) -> dict[str, dict[str, float]]:
        self.done.append(f"score {how}")
        return {lang: {"success@1": 0.5, "success@10": 0.75, "mrr@10": 0.6} for lang in ("de", "ru")}

    @staticmethod
    def _more_queries(out: Path) -> None:
        """Ask the held-out queries twice, so that there are enough for a mean."""
        for path in (out / "queries").glob("*.test.tsv"):
            lines = path.read_text(encoding="utf-8").splitlines()
            path.write_text("".join(f"{line}\nagain-{line}\n" for line in lines), encoding="utf-8")
        judgments = (out / "qrels.test.trec").read_text().splitlines()
        (out / "qrels.test.trec").write_text("".join(f"{line}\nagain-{line}\n" for line in judgments))


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    fakes = Fakes(make_student(tmp_path / "fabricated", dim=16, sentence_dim=8))
    fakes.install(monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return fakes


def test_taken_port_is_told_before_anything_is_done(taken_port: int) -> None:
    with pytest.raises(ResourceError, match=rf"port {taken_port} cannot be used .*name another with --port"):
        check_port(taken_port)


def test_free_port_is_accepted_and_left_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_port(port)
    check_port(port)


def test_job_leaves_the_product_the_index_and_the_report(
    fakes: Fakes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = Quickstart(tmp_path / "work", minutes=2)
    assert job.run() == "debian"
    assert fakes.done[:4] == ["fetch homeassistant", "fetch debian", "train", "export"]
    with Snapshot.open(job.snapshot) as snapshot:
        assert len(snapshot) == 72
    assert (job.student / "onnx" / "encoder.json").is_file()
    scores = json.loads((job.workdir / "report.json").read_text())["scores"]
    assert list(scores) == ["homeassistant", "debian"]
    for systems in scores.values():
        assert list(systems) == ["BM25", "untrained", "token-kd", "relevance-kd", "teacher (en)"]
    printed = capfd.readouterr()
    assert "Recall@1, debian" in printed.out and "MRR@10, homeassistant" in printed.out
    assert [line[:5] for line in printed.err.splitlines() if line.startswith("[")] == [
        f"[{n}/5]" for n in range(1, 6)
    ]
    assert "min left)" in printed.err


def test_what_serves_is_evaluated_while_it_serves(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(quickstart, "evaluate_meanwhile", lambda *arguments: started.append(arguments))
    job = Quickstart(tmp_path / "work", minutes=2)
    job.run(port=8099)
    module, url, *arguments = started[0]
    assert (module, url) == ("training.quickstart", "http://127.0.0.1:8099") and not (
        job.workdir / "report.json"
    ).exists()
    fakes.done.clear()
    quickstart.evaluate_apart(*arguments)
    assert set(fakes.done) == {"score torch", "score served"}
    assert "MRR@10, debian" in capfd.readouterr().out
    # All of it is there: the next run prints it at once.
    job.run(port=8099)
    assert len(started) == 1 and "MRR@10, debian" in capfd.readouterr().out


def test_second_run_does_only_what_is_left(fakes: Fakes, tmp_path: Path) -> None:
    job = Quickstart(tmp_path / "work", minutes=2)
    job.run()
    manifest = (job.snapshot / "manifest.json").stat().st_mtime_ns
    fakes.done.clear()
    job.run()
    assert fakes.done == ["fetch homeassistant", "fetch debian"]
    assert (job.snapshot / "manifest.json").stat().st_mtime_ns == manifest


def test_export_that_was_cut_off_is_done_again(fakes: Fakes, tmp_path: Path) -> None:
    job = Quickstart(tmp_path / "work", minutes=2)
    (job.workdir / "student.partial").mkdir(parents=True)
    (job.workdir / "student.partial" / "leftover").touch()
    (job.workdir / "student").mkdir()
    (job.workdir / "student" / "leftover").touch()
    job.run()
    assert not (job.student / "leftover").exists()
    assert not (job.workdir / "student.partial").exists()
    assert fakes.done.count("export") == 1


def test_minutes_are_shared_by_the_stages_as_the_recipe_shares_them(fakes: Fakes, tmp_path: Path) -> None:
    Quickstart(tmp_path / "work", minutes=10).run()
    (recipe,) = fakes.recipes
    minutes = [stage.minutes or 0 for stage in recipe.stages]
    assert sum(minutes) == pytest.approx(10, abs=0.01)
    shipped = [
        stage.minutes or 0 for stage in quickstart.load_recipe("quickstart", [f"data={recipe_data(recipe)}"]).stages
    ]
    assert [one / minutes[0] for one in minutes] == pytest.approx([one / shipped[0] for one in shipped], rel=0.01)
    assert [path.name for path in recipe.data] == ["homeassistant", "debian"]


def test_run_that_was_begun_goes_on_with_its_own_minutes(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(recipe: Recipe, out: Path, **_: Any) -> Path:
        claim(recipe, out, resume=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "run_recipe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Quickstart(tmp_path / "work", minutes=6).run()
    monkeypatch.setattr(quickstart, "run_recipe", fakes.train)
    Quickstart(tmp_path / "work", minutes=2).run()
    assert sum(stage.minutes or 0 for stage in fakes.recipes[0].stages) == pytest.approx(6, abs=0.01)
    assert "begun with 6 minutes and goes on so" in capfd.readouterr().err


def recipe_data(recipe: Recipe) -> str:
    return json.dumps([str(path) for path in recipe.data])


@pytest.mark.parametrize("problem", [FetchError("the mirror is away"), ResourceError("apt-get is missing")])
def test_machine_without_debian_serves_the_other_set(
    problem: Exception, fakes: Fakes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fakes.debian = problem
    job = Quickstart(tmp_path / "work", minutes=2)
    assert job.run() == "homeassistant"
    assert f"without the debian set: {problem}" in capfd.readouterr().err
    assert list(json.loads((job.workdir / "report.json").read_text())["scores"]) == ["homeassistant"]


def test_run_that_was_begun_without_debian_goes_on_without(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(recipe: Recipe, out: Path, **_: Any) -> Path:
        claim(recipe, out, resume=True)
        raise KeyboardInterrupt

    def going_on(recipe: Recipe, out: Path, **others: Any) -> Path:
        claim(recipe, out, resume=True)
        return fakes.train(recipe, out, **others)

    fakes.debian = FetchError("the mirror is away")
    monkeypatch.setattr(quickstart, "run_recipe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Quickstart(tmp_path / "work", minutes=2).run()
    fakes.debian = None
    monkeypatch.setattr(quickstart, "run_recipe", going_on)
    assert Quickstart(tmp_path / "work", minutes=2).run() == "homeassistant"
    assert [Path(path).name for path in json.loads(recipe_data(fakes.recipes[0]))] == ["homeassistant"]


def test_index_that_fails_stops_the_job(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Quickstart(tmp_path / "work", minutes=2)
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no passage\n")
    make_student(job.student, dim=16, sentence_dim=0)
    with pytest.raises(DrDecrError, match="the index was not built"):
        build_index(job.student, broken, job.snapshot)


def test_serving_replaces_the_process_after_three_lines_to_try(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: called.append([program, *arguments]))
    serve_forever(Path("work/student"), Path("work/snapshot"), "debian", 8099)
    program, *arguments = called[0]
    assert program == arguments[0] == sys.executable
    assert arguments[1:] == [
        "-m",
        "drdecr",
        "serve",
        "--student=work/student",
        "--index=debian=work/snapshot",
        "--port=8099",
    ]
    tries = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("curl ")]
    assert len(tries) == 3 and all("http://127.0.0.1:8099/" in line for line in tries)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["drdecr", "quickstart", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_program_refuses_a_taken_port_before_it_works(
    taken_port: int, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, f"--workdir={tmp_path / 'work'}", f"--port={taken_port}") == 1
    assert f"drdecr: port {taken_port} cannot be used" in capsys.readouterr().err
    assert fakes.done == []
    assert not (tmp_path / "work").exists()


def test_program_needs_no_port_where_it_does_not_serve(
    taken_port: int, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("served"))
    workdir = tmp_path / "work"
    assert call(monkeypatch, f"--workdir={workdir}", "--no-serve", "--minutes=1", f"--port={taken_port}") == 0
    assert (workdir / "report.json").is_file()
    assert sum(stage.minutes or 0 for stage in fakes.recipes[0].stages) == pytest.approx(1, abs=0.01)


def test_program_refuses_minutes_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "--minutes=0") == 2
