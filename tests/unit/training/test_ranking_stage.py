"""Stages over candidate lists on tiny students: they learn, go on after an interruption, and name what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fabricated_data_set import make_data_set
from fabricated_encoder import make_cross_encoder, make_encoder
from fabricated_torch_student import make_two_stream_student
from safetensors.torch import load_file
from torch import Tensor

from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.errors import InputError, ModelError, ResourceError, UsageError
from indexer.build import build
from training.fit import StageRun, naming_full_memory
from training.fresh import make_student
from training.literal_stage import run_literal
from training.losses.ranking import RankingLoss
from training.plan import StageCost, planned_steps
from training.ranking import RankingInputs, run_ranking
from training.recipe import LearningRates, LiteralStage, RankingStage
from training.rows import read_labelled, read_parallel

RATES = LearningRates(context=3e-3, embedding=3e-3, projection=3e-3, encoder=3e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("data") / "set", ("de", "ru"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_two_stream_student(tmp_path_factory.mktemp("teacher") / "teacher", dim=32)


@pytest.fixture
def inputs(data: Path, teacher: Path, tmp_path: Path) -> RankingInputs:
    return RankingInputs(
        labelled=read_labelled([data], ["de", "ru"], 1000),
        parallel=read_parallel([data], ["de", "ru"], 1000),
        cache=tmp_path / "scores",
        teacher=teacher,
    )


def stage(**settings: Any) -> RankingStage:
    defaults = {"kind": "ranking", "name": "a", "steps": 24, "batch_size": 4, "learning_rates": RATES, "ways": 3}
    return RankingStage.model_validate(defaults | settings)


def run_of(one: RankingStage, student: Path, folder: Path) -> StageRun:
    return StageRun(one, student, folder, seed=5)


def losses_of(folder: Path) -> list[float]:
    history = json.loads((folder / "done.json").read_text())["history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def assert_same_weights(left: Path, right: Path) -> None:
    names = [path.relative_to(left) for path in left.rglob("model.safetensors")]
    for name in names:
        ours, theirs = load_file(left / name), load_file(right / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert names


def test_direct_fine_tuning_learns_from_labelled_queries(
    two_stream_student: Path, inputs: RankingInputs, tmp_path: Path
) -> None:
    one = stage(objective="cross-entropy", in_batch=True, steps=40)
    run_ranking(run_of(one, two_stream_student, tmp_path / "1-a"), inputs)
    losses = losses_of(tmp_path / "1-a")
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    assert not inputs.cache.exists()


def test_relevance_kd_keeps_the_teachers_scores_for_the_next_run(
    two_stream_student: Path, inputs: RankingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage(objective="kl", scores="teacher", mean_maxsim=True, temperature=0.1)
    product = run_ranking(run_of(one, two_stream_student, tmp_path / "1-a"), inputs)
    assert len(list(inputs.cache.glob("*/scores.f32"))) == 1

    def refuse(self: object, rows: object) -> None:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr("training.candidates.scores.TeacherScorer.score", refuse)
    again = run_ranking(run_of(one, two_stream_student, tmp_path / "2-a"), inputs)
    assert_same_weights(product, again)


@pytest.mark.parametrize("labelled", [True, False])
def test_candidates_are_mined_from_the_teachers_snapshot(
    labelled: bool, two_stream_student: Path, inputs: RankingInputs, data: Path, teacher: Path, tmp_path: Path
) -> None:
    build(TorchEncoder.load(teacher, device="cpu"), data / "train.passages.jsonl", tmp_path / "snapshot")
    mine = {"snapshot": tmp_path / "snapshot", "depth": 8}
    one = stage(objective="kl", rows="labelled" if labelled else "parallel", mine=mine, steps=4)
    run_ranking(run_of(one, two_stream_student, tmp_path / "1-a"), inputs)
    assert np.isfinite(losses_of(tmp_path / "1-a")).all()


def test_cross_encoder_teaches_an_english_student(inputs: RankingInputs, tmp_path: Path) -> None:
    student = make_student(make_encoder(tmp_path / "xlmr"), tmp_path / "student", dim=8, seed=0)
    judge = make_cross_encoder(tmp_path / "judge")
    one = stage(objective="kl", scores="cross-encoder", cross_encoder=str(judge), temperature=0.1)
    given = RankingInputs(inputs.labelled, inputs.parallel, inputs.cache, None, judge)
    run_ranking(run_of(one, student, tmp_path / "1-a"), given)
    losses = losses_of(tmp_path / "1-a")
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


class Stopped(Exception):
    """What stops a training in this test."""


@pytest.mark.parametrize("kind", ["ranking", "literal"])
def test_interrupted_stage_goes_on_to_the_same_weights(
    kind: str, inputs: RankingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder(tmp_path / "xlmr")
    student = make_student(encoder, tmp_path / "student", dim=8, seed=0)
    literals = {"code_point_markers": False}
    if kind == "ranking":
        one: Any = stage(objective="kl", scores="live", learning_rates=RATES, steps=28)
        given = RankingInputs(inputs.labelled, inputs.parallel, inputs.cache, student)
        loss = "training.losses.ranking.RankingLoss.forward"

        def train(folder: Path) -> Path:
            return run_ranking(run_of(one, student, folder), given)
    else:
        one = LiteralStage(
            kind="literal-token-kd",
            name="a",
            steps=28,
            batch_size=4,
            query_tokens=16,
            passage_tokens=24,
            literal=literals,  # type: ignore[arg-type]
            learning_rates=RATES,
        )
        loss = "training.losses.literal.LiteralTokenKD.forward"

        def train(folder: Path) -> Path:
            return run_literal(run_of(one, student, folder), inputs.parallel, student)

    whole = train(tmp_path / "whole")
    calls = 0
    with monkeypatch.context() as patch:
        module, _, name = loss.rpartition(".")
        owner, _, kind_name = module.rpartition(".")
        forward = getattr(__import__(owner, fromlist=[kind_name]), kind_name).__dict__[name]

        def stopping(self: object, features: Any, labels: Tensor) -> Any:
            nonlocal calls
            calls += 1
            if calls == 25:
                raise Stopped
            return forward(self, features, labels)

        patch.setattr(loss, stopping)
        with pytest.raises(Stopped):
            train(tmp_path / "cut")
    assert not (tmp_path / "cut" / "done.json").exists()
    assert_same_weights(train(tmp_path / "cut"), whole)


def test_stage_in_minutes_is_timed_once(two_stream_student: Path, inputs: RankingInputs, tmp_path: Path) -> None:
    one = stage(objective="kl", steps=None, minutes=0.001)
    run_ranking(run_of(one, two_stream_student, tmp_path / "1-a"), inputs)
    plan = json.loads((tmp_path / "1-a" / "plan.json").read_text())
    assert plan["steps"] >= 10 and plan["seconds_a_step"] > 0
    assert not (tmp_path / "1-a" / "calibration").exists()


def test_stage_in_minutes_is_refused_in_several_processes(
    two_stream_student: Path, inputs: RankingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "1-a").mkdir()
    run = run_of(stage(objective="kl", steps=None, minutes=1), two_stream_student, tmp_path / "1-a")
    with pytest.raises(UsageError, match=r"stage a: 2 processes .*give `steps`, not `minutes`"):
        planned_steps(run, lambda: StageCost(1.0))


def test_live_teacher_with_another_tokenizer_is_refused(inputs: RankingInputs, tmp_path: Path) -> None:
    student = make_student(make_encoder(tmp_path / "xlmr"), tmp_path / "student", dim=8, seed=0)
    with pytest.raises(ModelError, match=r"stage a: student and teacher must share one tokenizer.*stored"):
        run_ranking(run_of(stage(objective="kl", scores="live"), student, tmp_path / "1-a"), inputs)


def test_stage_without_rows_is_refused(two_stream_student: Path, inputs: RankingInputs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stage a: no labelled rows to learn from"):
        run_ranking(run_of(stage(), two_stream_student, tmp_path / "1-a"), RankingInputs({}, {}, inputs.cache))


def test_full_memory_names_the_settings_to_lower(
    two_stream_student: Path, inputs: RankingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*of: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(RankingLoss, "forward", full)
    with pytest.raises(ResourceError, match=r"stage a does not fit into memory: raise accumulate \(now 1, .*ways"):
        run_ranking(run_of(stage(objective="cross-entropy"), two_stream_student, tmp_path / "1-a"), inputs)
    with pytest.raises(RuntimeError, match="something else"), naming_full_memory(stage()):
        raise RuntimeError("something else")
