"""`drdecr train` as a program: killed, continued, refused; and a whole run on a tiny student."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fabricated_data_set import make_data_set
from fabricated_torch_student import make_two_stream_student
from safetensors.torch import load_file
from torch import allclose, equal

from drdecr import cli
from drdecr.encoder.load import load_encoder
from drdecr.errors import InputError, UsageError
from training.feasible import require_feasible
from training.recipe import Stage
from training.recipe_file import load_recipe
from training.rows import Row
from training.run import run_recipe
from training.stage import run_stage
from training.stage_rows import StageInputs

DRDECR = [sys.executable, "-c", "from drdecr.cli import main; main()"]
Program = Callable[..., int]


@pytest.fixture(scope="module")
def recipe(two_stream_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of two stages, on a tiny student and a tiny teacher."""
    root = tmp_path_factory.mktemp("recipe")
    rates = {"context": 1e-3, "embedding": 1e-3, "projection": 1e-3}
    content = {
        "name": "tiny",
        "threads": 1,
        "student": str(two_stream_student),
        "teacher": str(make_two_stream_student(root / "teacher", dim=32)),
        "data": [str(make_data_set(root / "data", ("de", "ru")))],
        "languages": ["de", "ru"],
        "validation_texts": 4,
        "stages": [
            {"name": "token-kd", "steps": 12, "batch_size": 4, "learning_rates": rates},
            {
                "name": "relevance-kd",
                "steps": 200,
                "batch_size": 4,
                "learning_rates": rates,
                "objectives": {"relevance": 1.0, "context_relevance": 1.0},
            },
        ],
    }
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    out = tmp_path_factory.mktemp("run") / "run"
    said: list[str] = []
    assert run_recipe(load_recipe(recipe), out, say=said.append) == out / "student"
    assert said == ["stage token-kd", "stage relevance-kd"]
    return out


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """Call `drdecr` in this process and return its exit status."""

    def call(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["drdecr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return call


def test_run_leaves_its_recipe_its_stages_and_its_student(run: Path, two_stream_student: Path) -> None:
    assert json.loads((run / "recipe.json").read_text())["name"] == "tiny"
    assert sorted(path.name for path in (run / "stages").iterdir()) == ["1-token-kd", "2-relevance-kd"]
    for stage, steps in (("1-token-kd", 12), ("2-relevance-kd", 200)):
        done = json.loads((run / "stages" / stage / "done.json").read_text())
        assert done["steps"] == steps
        assert list((run / "stages" / stage / "tensorboard").glob("events.out.tfevents.*"))
    last = load_file(run / "stages" / "2-relevance-kd" / "student" / "model.safetensors")
    product, origin = (load_file(one / "model.safetensors") for one in (run / "student", two_stream_student))
    assert all(equal(product[name], last[name]) for name in last)
    fixed = [name for name in origin if name.startswith("ngram.")]
    assert len(fixed) > 10
    assert all(equal(product[name], origin[name]) for name in fixed)
    assert len(load_encoder(run / "student").encode(["music player"], "query")) == 1


def test_run_leaves_curves_bars_and_aligned_tokens_in_one_file(run: Path) -> None:
    for stage in ("1-token-kd", "2-relevance-kd"):
        history = json.loads((run / "stages" / stage / "done.json").read_text())["history"]
        assert any("eval_loss" in entry for entry in history)
        events = (run / "stages" / stage / "tensorboard").glob("events.out.tfevents.*")
        assert any(b"eval/loss" in path.read_bytes() for path in events)
        scores = json.loads((run / "stages" / stage / "validation.json").read_text())
        assert sorted(scores) == ["data/de", "data/ru"]
        assert 0 <= scores["data/de"]["success@1"] <= 1
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("<polyline") >= 4 and page.count('class="bar"') == 4
    assert page.count('class="heat"') == 2 and "class=taken" in page
    # Nothing is loaded from anywhere.
    assert not re.search(r"""(src|href)=|url\(|@import""", page)


def test_run_that_was_killed_goes_on_to_the_same_weights(recipe: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [*DRDECR, "train", str(recipe), "--out", str(out)]
    checkpoints = out / "stages" / "2-relevance-kd" / "checkpoints"
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not list(checkpoints.glob("checkpoint-*")):
            assert started.poll() is None, started.communicate()[1].decode()
            time.sleep(0.001)
    finally:
        os.kill(started.pid, signal.SIGKILL)
        started.communicate()
    assert started.returncode == -signal.SIGKILL
    assert not (out / "stages" / "2-relevance-kd" / "done.json").exists()
    finished = out / "stages" / "1-token-kd"
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}

    done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"student": str(out / "student")}
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    for part in ("model.safetensors", "1_Dense/model.safetensors"):
        ours, theirs = load_file(out / "student" / part), load_file(run / "student" / part)
        assert ours.keys() == theirs.keys()
        assert all(allclose(ours[name].float(), theirs[name].float(), atol=1e-6) for name in ours)


def test_existing_run_is_refused_without_resume(
    recipe: Path, run: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("train", recipe, "--out", run) == 2
    printed = capsys.readouterr()
    assert "holds a run already; continue it with --resume" in printed.err
    assert printed.err.count("\n") == 1


def test_finished_run_is_returned_by_resume(
    recipe: Path, run: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert program("train", recipe, "--out", run, "--resume") == 0
    assert capsys.readouterr().out == f"student: {run / 'student'}\n"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_run_of_another_recipe_is_refused(
    recipe: Path, run: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="belongs to a run with other settings"):
        run_recipe(load_recipe(recipe, ["seed=1"]), run, resume=True)
    assert program("train", recipe, "--out", run, "--resume", "--set", "stages.token-kd.steps=13") == 2
    assert f"see {run / 'recipe.json'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["absent"], "absent: no such file, and no shipped recipe"),
        (["{recipe}", "--set", "stages.token-kd.minutes=1"], "give a stage either `steps` or `minutes`"),
        (["{recipe}", "--set", "data=[nowhere]"], "data: nowhere is no fetched data set"),
        (["{recipe}", "--colour"], "No such option"),
    ],
)
def test_bad_usage_ends_with_status_2_and_makes_no_run(
    arguments: list[str],
    named: str,
    recipe: Path,
    program: Program,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [argument.replace("{recipe}", str(recipe)) for argument in arguments]
    assert program("train", *filled, "--out", tmp_path / "run") == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_languages_that_the_data_lack_are_named_on_stderr(
    recipe: Path, program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing is left to train on, so that it ends here.
    assert program("train", recipe, "--set", "languages=[xx, yy]", "--out", tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()
    shown = capsys.readouterr()
    assert f"{recipe.parent / 'data'} holds nothing in xx, yy: passed over" in shown.err
    assert shown.out == ""


def test_what_cannot_be_trained_shows_before_anything_is(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.run_stage", lambda *_: pytest.fail("trained"))
    without_rows = load_recipe(recipe, ["stages.relevance-kd.sources=[other/*]"])
    with pytest.raises(InputError, match="stage relevance-kd: no rows to learn from"):
        run_recipe(without_rows, tmp_path / "run")
    embedded = load_recipe(recipe, ["student=embedded"])
    with pytest.raises(InputError, match="the embedded base is fitted to parallel text"):
        require_feasible(embedded, tmp_path / "run", {"files/de": []}, {}, {})
    assert not (tmp_path / "run").exists()


def test_stage_that_has_not_begun_may_still_change(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(stage: Stage, inputs: StageInputs, folder: Path) -> Path:
        if stage.name == "relevance-kd":
            raise KeyboardInterrupt
        return run_stage(stage, inputs, folder)

    short = ["stages.token-kd.steps=2"]
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("training.run.run_stage", stopped)
        run_recipe(load_recipe(recipe, short), tmp_path / "run")
    first = tmp_path / "run" / "stages" / "1-token-kd" / "done.json"
    before = first.stat().st_mtime_ns
    for change in ("stages.token-kd.steps=3", "seed=1"):
        with pytest.raises(UsageError, match="only stages that have not begun may change"):
            run_recipe(load_recipe(recipe, [*short, change]), tmp_path / "run", resume=True)
    changed = [*short, "stages.relevance-kd.steps=4"]
    run_recipe(load_recipe(recipe, changed), tmp_path / "run", resume=True)
    assert first.stat().st_mtime_ns == before
    second = json.loads((tmp_path / "run" / "stages" / "2-relevance-kd" / "done.json").read_text())
    assert second["steps"] == 4
    stored = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert [stage["steps"] for stage in stored["stages"]] == [2, 4]
    # Finished, it belongs to its recipe whole.
    with pytest.raises(UsageError, match="belongs to a run with other settings"):
        run_recipe(load_recipe(recipe, [*changed, "stages.relevance-kd.steps=5"]), tmp_path / "run", resume=True)


def test_teacher_of_another_width_teaches_too(recipe: Path, tmp_path: Path) -> None:
    wider = make_two_stream_student(tmp_path / "teacher", dim=40)
    short = [f"stages.{name}.steps=3" for name in ("token-kd", "relevance-kd")]
    student = run_recipe(load_recipe(recipe, [*short, f"teacher={wider}"]), tmp_path / "run")
    # Both stages learn one space.
    assert len(list((tmp_path / "run" / "models").glob("token-map-*-32.npy"))) == 1
    assert len(load_encoder(student).encode(["music player"], "query")) == 1


def test_stage_of_words_reads_the_dictionaries_and_no_other_does(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "de.tsv"
    # The last entry says what the data set holds out.
    words.write_text("house\tHaus\nroof\tDach\nmusic viewer\tMusikbetrachter\n", encoding="utf-8")
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    stage = {"steps": 1, "batch_size": 2, "alike": 1}
    content["dictionaries"] = [str(words)]
    content["stages"] = [
        stage | {"name": "words", "rows": "dictionaries"},
        stage | {"name": "text"},
        stage | {"name": "short", "rows": "all", "longest": 30, "sources": [str(words), "*/ru"]},
    ]
    read: list[StageInputs] = []

    def remember(stage: Stage, inputs: StageInputs, folder: Path) -> Path:
        read.append(inputs)
        return run_stage(stage, inputs, folder)

    monkeypatch.setattr("training.run.run_stage", remember)
    (tmp_path / "words.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    run_recipe(load_recipe(tmp_path / "words.yaml"), tmp_path / "run")
    of_words, of_text, of_short = read
    assert {source: [row.english for row in rows] for source, rows in of_words.parallel.items()} == {
        str(words): ["house", "roof"]
    }
    assert of_words.labelled == {}
    assert sorted(of_text.parallel) == ["data/de", "data/ru"] and of_text.labelled
    assert sorted(of_short.parallel) == sorted(["data/ru", str(words)]) and list(of_short.labelled) == ["data/ru"]
    assert max(len(row.english) for rows in of_short.parallel.values() for row in rows) <= 30


def test_switched_text_is_a_source_of_its_own(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, sentences = tmp_path / "de.tsv", tmp_path / "texts.tsv"
    words.write_text("roof\tDach\nstone\tStein\n", encoding="utf-8")
    sentences.write_text("a roof of stone\tun toit de pierre\nthe end\tla fin\n", encoding="utf-8")
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    content |= {"dictionaries": [str(words)], "parallel": [str(sentences)]}
    content |= {"switched": {"texts": ["*texts.tsv"], "rows": 9}, "validation_texts": 0}
    content["stages"] = [{"name": "text", "steps": 1, "batch_size": 2, "alike": 1, "sources": ["switched/*"]}]
    read: list[StageInputs] = []

    def remember(stage: Stage, inputs: StageInputs, folder: Path) -> Path:
        read.append(inputs)
        return run_stage(stage, inputs, folder)

    monkeypatch.setattr("training.run.run_stage", remember)
    # Which of its words a text has switched is by the seed: 3 switches both.
    (tmp_path / "switched.yaml").write_text(yaml.safe_dump(content | {"seed": 3}), encoding="utf-8")
    run_recipe(load_recipe(tmp_path / "switched.yaml"), tmp_path / "run")
    english = "a roof of stone"
    assert read[0].parallel == {"switched/de": [Row("a Dach of Stein", english, english)]}
    content["switched"]["texts"] = ["other*"]
    (tmp_path / "none.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"switched\.texts: no file of `parallel` fits other\*"):
        run_recipe(load_recipe(tmp_path / "none.yaml"), tmp_path / "other")
