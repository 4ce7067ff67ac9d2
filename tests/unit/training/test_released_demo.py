"""The demo with a released student: which student it takes, what it makes, and that it never mixes with training."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from fabricated_data_set import make_data_set
from fabricated_student import make_student

from drdecr import cli
from drdecr.encoder.load import load_encoder
from drdecr.errors import FetchError, UsageError
from drdecr.index import Snapshot
from training import demo_steps, quickstart, released
from training.evaluation.held_out import load_held_out
from training.quickstart import Quickstart
from training.released import ReleasedDemo, choose_student, find_released


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a released student; that of this checkout is out of sight."""
    monkeypatch.setattr(released, "__file__", str(tmp_path / "elsewhere" / "training" / "released.py"))
    make_student(tmp_path / "checkout" / "models" / "drdecr-16", dim=16, sentence_dim=8)
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which sets were fetched, in order; nothing goes over a network."""
    sets: list[str] = []

    def fetch(out: Path, languages: tuple[str, ...]) -> None:
        sets.append(out.name)
        if not (out / "meta.json").is_file():
            make_data_set(out, ("de", "ru"), times_asked=2)

    monkeypatch.setattr(demo_steps, "fetch_debian", fetch)
    monkeypatch.setattr(demo_steps, "fetch_homeassistant", fetch)
    monkeypatch.setattr(demo_steps.shutil, "which", lambda _: "/usr/bin/apt-get")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(released, "compile_meanwhile", lambda _: None)
    return sets


def test_released_student_is_taken_where_there_is_one(checkout: Path) -> None:
    found = find_released()
    assert found is not None and found.samefile(checkout / "models" / "drdecr-16")
    assert choose_student(checkout / "work", None, train=False) == found


def test_package_of_a_checkout_finds_its_student_from_anywhere(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, "__file__", str(checkout / "training" / "released.py"))
    monkeypatch.chdir(tmp_path)
    assert find_released() == checkout.resolve() / "models" / "drdecr-16"


def test_checkout_without_a_student_trains(checkout: Path) -> None:
    (checkout / "models" / "drdecr-16" / "onnx" / "encoder.json").unlink()
    assert choose_student(checkout / "work", None, train=False) is None


def test_asking_for_training_trains(checkout: Path) -> None:
    assert choose_student(checkout / "work", None, train=True) is None


def test_named_student_comes_before_the_released_one(checkout: Path, tiny_student: Path) -> None:
    assert choose_student(checkout / "work", tiny_student, train=False) == tiny_student


def test_named_directory_without_a_serving_student_is_refused(checkout: Path) -> None:
    with pytest.raises(UsageError, match=r"--student: .* has no onnx/encoder\.json"):
        choose_student(checkout / "work", checkout, train=False)


def test_named_student_and_training_exclude_each_other(checkout: Path, tiny_student: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        choose_student(checkout / "work", tiny_student, train=True)


def test_directory_that_training_began_goes_on_so(checkout: Path) -> None:
    (checkout / "work" / "run").mkdir(parents=True)
    assert choose_student(checkout / "work", None, train=False) is None


def test_directory_serves_its_copy_where_the_released_student_is_gone(checkout: Path) -> None:
    work = checkout / "work"
    make_student(work / "student", dim=16, sentence_dim=8)
    (work / "released.json").touch()
    (checkout / "models" / "drdecr-16" / "onnx" / "encoder.json").unlink()
    assert choose_student(work, None, train=False) == work / "student"


def test_demo_leaves_student_index_and_report(
    tiny_student: Path, fetched: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = ReleasedDemo(tmp_path / "work", tiny_student)
    assert job.run() == "debian"
    assert fetched == ["debian"]
    with Snapshot.open(job.snapshot) as snapshot:
        assert len(snapshot) == 72
    assert (job.student / "onnx" / "encoder.json").is_file()
    scores = json.loads((job.workdir / "report.json").read_text())["scores"]
    assert {name: list(systems) for name, systems in scores.items()} == {"debian": ["BM25", "student"]}
    assert set(scores["debian"]["student"]) == {"de", "ru"}
    printed = capfd.readouterr()
    assert "Recall@10, debian" in printed.out
    assert [line[:5] for line in printed.err.splitlines() if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]


def test_demo_indexes_few_passages_and_every_answer(
    tiny_student: Path, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.released._PASSAGES", 40)
    job = ReleasedDemo(tmp_path / "work", tiny_student)
    job.run()
    data = job.workdir / "data" / "debian"
    held_out = load_held_out(data, limit=60)
    asked = {query.id for queries in held_out.queries.values() for query in queries}
    answers = {passage for query in asked for passage in held_out.qrels[query]}
    with Snapshot.open(job.snapshot) as snapshot:
        assert len(snapshot) == max(40, len(answers))
        assert set(snapshot.passages(sorted(answers))) == answers


def test_second_run_does_only_what_is_left(tiny_student: Path, fetched: list[str], tmp_path: Path) -> None:
    job = ReleasedDemo(tmp_path / "work", tiny_student)
    job.run()
    before = [
        (tmp_path / "work" / name).stat().st_mtime_ns
        for name in ("snapshot/manifest.json", "report.json", "student/onnx/encoder.json")
    ]
    job.run()
    assert before == [
        (tmp_path / "work" / name).stat().st_mtime_ns
        for name in ("snapshot/manifest.json", "report.json", "student/onnx/encoder.json")
    ]


def test_another_student_makes_the_directory_anew(
    tiny_student: Path, another_student: Path, fetched: list[str], tmp_path: Path
) -> None:
    ReleasedDemo(tmp_path / "work", tiny_student).run()
    first = json.loads((tmp_path / "work" / "report.json").read_text())
    job = ReleasedDemo(tmp_path / "work", another_student)
    job.run()
    with Snapshot.open(job.snapshot) as snapshot:
        snapshot.require(load_encoder(another_student, threads=1).spec)
    assert json.loads((tmp_path / "work" / "report.json").read_text()) != first


def test_copy_that_was_cut_off_is_made_again(tiny_student: Path, fetched: list[str], tmp_path: Path) -> None:
    job = ReleasedDemo(tmp_path / "work", tiny_student)
    job.run()
    (job.student / "onnx" / "encoder.json").unlink()
    (job.workdir / "student.partial").mkdir()
    job.run()
    assert (job.student / "onnx" / "encoder.json").is_file()
    assert not (job.workdir / "student.partial").exists()


def test_student_of_somebody_else_is_not_removed(tiny_student: Path, fetched: list[str], tmp_path: Path) -> None:
    (tmp_path / "work" / "student").mkdir(parents=True)
    with pytest.raises(UsageError, match="name another --workdir"):
        ReleasedDemo(tmp_path / "work", tiny_student).run()
    assert (tmp_path / "work" / "student").is_dir() and fetched == []


def test_directories_of_training_and_of_a_released_student_never_mix(
    tiny_student: Path, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "run_recipe", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "trained" / "run").mkdir(parents=True)
    with pytest.raises(UsageError, match="begun by training; go on with --train"):
        ReleasedDemo(tmp_path / "trained", tiny_student).run()
    ReleasedDemo(tmp_path / "work", tiny_student).run()
    with pytest.raises(UsageError, match="serves a released student; train in another"):
        Quickstart(tmp_path / "work", minutes=1).run()


def test_machine_without_debian_serves_the_other_set(
    tiny_student: Path,
    fetched: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def away(*_: object) -> None:
        raise FetchError("the mirror is away")

    monkeypatch.setattr(demo_steps, "fetch_debian", away)
    assert ReleasedDemo(tmp_path / "work", tiny_student).run() == "homeassistant"
    assert "without the debian set: the mirror is away" in capfd.readouterr().err


def test_set_that_can_be_had_later_does_not_lend_its_name_to_the_one_indexed(
    tiny_student: Path, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    with monkeypatch.context() as without_apt:
        without_apt.setattr(demo_steps.shutil, "which", lambda _: None)
        assert ReleasedDemo(work, tiny_student).run() == "homeassistant"
    indexed = (work / "snapshot" / "manifest.json").stat().st_mtime_ns
    assert ReleasedDemo(work, tiny_student).run() == "homeassistant"
    assert (work / "snapshot" / "manifest.json").stat().st_mtime_ns == indexed
    assert list(json.loads((work / "report.json").read_text())["scores"]) == ["homeassistant"]
    assert fetched == ["homeassistant"]


def test_set_that_is_indexed_is_served_where_it_can_no_longer_be_fetched(
    tiny_student: Path, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    assert ReleasedDemo(work, tiny_student).run() == "debian"
    monkeypatch.setattr(demo_steps.shutil, "which", lambda _: None)
    assert ReleasedDemo(work, tiny_student).run() == "debian"
    shutil.rmtree(work / "data")
    with pytest.raises(FetchError, match="was begun with the debian set; name another --workdir"):
        ReleasedDemo(work, tiny_student).run()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["drdecr", "quickstart", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_program_uses_the_released_student_and_does_not_train(
    checkout: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("served"))
    monkeypatch.setattr(quickstart, "Quickstart", lambda *_: pytest.fail("trained"))
    assert call(monkeypatch, "--workdir=work", "--no-serve") == 0
    assert (checkout / "work" / "report.json").is_file()


@pytest.mark.parametrize("asked", ["--train", "--minutes=1"])
def test_program_trains_when_asked_to(
    asked: str, checkout: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Path, float]] = []

    def train(workdir: Path, minutes: float) -> Quickstart:
        made.append((workdir, minutes))
        raise UsageError("asked to train")

    monkeypatch.setattr(quickstart, "Quickstart", train)
    assert call(monkeypatch, "--workdir=work", "--no-serve", asked) == 2
    assert made == [(Path("work"), 1.0 if asked == "--minutes=1" else 6.0)]


def test_training_without_its_libraries_says_what_to_install(
    checkout: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert call(monkeypatch, "--workdir=work", "--no-serve", "--train") == 1
    assert "pip install 'drdecr[train]'" in capsys.readouterr().err
    assert not (checkout / "work").exists()


def test_what_is_compiled_beforehand_is_an_index_that_searches(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    warm: list[int] = []
    monkeypatch.setattr(Snapshot, "warm_up", lambda self: warm.append(len(self)))
    demo_steps.compile_kernels(str(tiny_student))
    assert warm == [320]
    assert "320 passages" in capfd.readouterr().out
