"""A stage of distillation on a tiny student: it learns, repeats itself exactly, and survives interruptions."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fabricated_data_set import make_data_set
from fabricated_torch_student import make_two_stream_student
from safetensors.torch import load_file
from torch import Tensor

import training.stage
from drdecr.encoder.load import load_encoder
from drdecr.encoder.settings import read_settings
from drdecr.encoder.torch_runtime import TorchEncoder, load_model
from drdecr.errors import InputError, UsageError
from training.checkpoints import last_whole_checkpoint
from training.finishing import refit_projection
from training.fit import freeze, learning_rates, part_of
from training.losses.distillation import DistillationLoss
from training.plan import FEWEST_STEPS
from training.recipe import LearningRates, ObjectiveWeights, Stage
from training.rows import read_labelled, read_parallel
from training.stage import run_stage
from training.stage_cost import measure_stage
from training.stage_rows import StageInputs
from training.teacher import TeacherVectors

STAGE = Stage(
    name="both",
    steps=48,
    batch_size=4,
    objectives=ObjectiveWeights(token_query=1, token_passage=1, relevance=1, context_relevance=1),
    learning_rates=LearningRates(context=3e-3, embedding=3e-3, projection=3e-3),
)


@pytest.fixture(scope="module")
def inputs(two_stream_student: Path, tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    root = tmp_path_factory.mktemp("stage")
    # Token KD compares the student's contextual features, 32 wide, with the teacher's tokens.
    teacher = make_two_stream_student(root / "teacher", dim=32)
    data = [make_data_set(root / "data", ("de", "ru"))]
    return StageInputs(
        student=two_stream_student,
        teacher=TorchEncoder.load(teacher, device="cpu", threads=1),
        parallel=read_parallel(data, ["de", "ru"], 1000),
        labelled=read_labelled(data, ["de", "ru"], 1000),
        seed=5,
    )


@pytest.fixture(scope="module")
def finished(inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stage that ran without interruption."""
    folder = tmp_path_factory.mktemp("finished") / "1-both"
    run_stage(STAGE, inputs, folder)
    return folder


def weights_of(student: Path) -> dict[str, Tensor]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(student.rglob("model.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_same_weights(left: Path, right: Path) -> None:
    ours, theirs = (list(weights_of(student).values()) for student in (left, right))
    assert len(ours) == len(theirs) > 10
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_mixed_precision_learns_nearly_the_same_and_keeps_weights_in_32_bits(
    inputs: StageInputs, finished: Path, tmp_path: Path
) -> None:
    product = run_stage(STAGE, replace(inputs, bfloat16=True), tmp_path / "1-both")
    mixed, full, before = (
        list(weights_of(student).values()) for student in (product, finished / "student", inputs.student)
    )
    assert [tensor.dtype for tensor in mixed] == [tensor.dtype for tensor in full]
    learned = [at for at, tensor in enumerate(full) if tensor.is_floating_point()]
    went = torch.cat([(full[at] - before[at]).flatten() for at in learned])
    apart = torch.cat([(full[at] - mixed[at]).flatten() for at in learned])
    assert 0 < float(apart.norm()) < 0.5 * float(went.norm())


def test_loss_falls(finished: Path) -> None:
    done = json.loads((finished / "done.json").read_text())
    assert done["steps"] == STAGE.steps
    losses = [entry["loss"] for entry in done["history"] if "loss" in entry]
    assert len(losses) == STAGE.steps
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


def test_finished_stage_leaves_its_student_and_its_events(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == ["done.json", "plan.json", "student", "tensorboard"]
    events = list((finished / "tensorboard").glob("events.out.tfevents.*"))
    assert events and all(b"train/loss" in path.read_bytes() for path in events)


def test_student_keeps_its_settings_and_still_encodes(finished: Path, inputs: StageInputs) -> None:
    assert read_settings(finished / "student") == read_settings(inputs.student)
    encoded = load_encoder(finished / "student").encode(["music player"], "query")
    assert encoded.vectors.shape[1] == 16
    assert encoded.sentences is not None and np.isfinite(encoded.sentences).all()


def test_only_the_trained_parts_change_and_never_the_ngram_stream(finished: Path, inputs: StageInputs) -> None:
    before = load_model(inputs.student, device="cpu").state_dict()
    after = load_model(finished / "student", device="cpu").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "1.linear.weight" in changed
    assert "0.context.embedding.english" in changed
    assert any(name.startswith("0.context.bert.encoder.layer.1.") for name in changed)
    assert not {name for name in changed if part_of(name) is None}
    assert {name for name in before if part_of(name) is None} >= {"0.ngram.out.weight", "0.context.embedding.weights"}


def test_part_with_rate_zero_stays_as_it_was(inputs: StageInputs, tmp_path: Path) -> None:
    rates = STAGE.learning_rates.model_copy(update={"projection": 0, "embedding": 0, "bridge": 0, "sentence": 0})
    stage = STAGE.model_copy(update={"steps": 3, "learning_rates": rates})
    before = load_model(inputs.student, device="cpu").state_dict()
    after = load_model(run_stage(stage, inputs, tmp_path / "1-both"), device="cpu").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("0.context.bert.") for name in changed)


def test_same_seed_gives_the_same_weights_and_another_seed_others(
    finished: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    assert_same_weights(run_stage(STAGE, inputs, tmp_path / "same"), finished / "student")
    short = STAGE.model_copy(update={"steps": 3})
    one = weights_of(run_stage(short, inputs, tmp_path / "one"))
    other = weights_of(run_stage(short, replace(inputs, seed=6), tmp_path / "other"))
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("vectors", ["stored", "live"])
def test_each_batch_has_one_language_where_asked(
    inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: str
) -> None:
    seen: dict[str, list[str]] = {}

    def stop(*given: Any, **_: Any) -> None:
        seen.update({kind: list(rows["query"]) for kind, rows in given[3].items()})
        raise Stopped

    monkeypatch.setattr(training.stage, "fit", stop)
    shown: list[list[set[str]]] = []
    for one_language in (True, False):
        stage = Stage(name="a", steps=16, batch_size=4, alike=1, one_language=one_language, teacher_vectors=vectors)
        with pytest.raises(Stopped):
            run_stage(stage, inputs, tmp_path / str(one_language))
        shown.append([])
        for queries in seen.values():
            languages = ["ru" if re.search("[а-я]", query) else "de" for query in queries]
            shown[-1] += [set(languages[start : start + 4]) for start in range(0, len(languages), 4)]
    apart, mixed = shown
    # What a language has over makes one batch of each kind of rows.
    assert sum(len(batch) == 2 for batch in apart) <= 2
    assert {"de"} in apart and {"ru"} in apart
    assert sum(len(batch) == 2 for batch in mixed) > 8


def test_finished_stage_is_not_run_again(finished: Path, inputs: StageInputs) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    absent = replace(inputs, student=Path("absent"))
    assert run_stage(STAGE, absent, finished) == finished / "student"
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


class Stopped(Exception):
    """What stops a training in these tests."""


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loss fail at a step, counted from 1."""
    forward = DistillationLoss.forward
    calls = 0

    def counting(self: DistillationLoss, features: Any, labels: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Stopped
        return forward(self, features, labels)

    monkeypatch.setattr(DistillationLoss, "forward", counting)


def test_interrupted_stage_goes_on_from_its_checkpoint_to_the_same_weights(
    finished: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    folder = tmp_path / "1-both"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(30, patch)
        with pytest.raises(Stopped):
            run_stage(STAGE, inputs, folder)
    assert not (folder / "done.json").exists()
    assert str(last_whole_checkpoint(folder / "checkpoints")).endswith("checkpoint-20")
    with pytest.MonkeyPatch.context() as patch:
        # 28 steps are left: one more would be a step done twice.
        stop_at(29, patch)
        run_stage(STAGE, inputs, folder)
    assert_same_weights(folder / "student", finished / "student")


def test_checkpoint_that_was_cut_off_is_not_gone_on_from(finished: Path, inputs: StageInputs, tmp_path: Path) -> None:
    folder = tmp_path / "1-both"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(30, patch)
        with pytest.raises(Stopped):
            run_stage(STAGE, inputs, folder)
    whole = folder / "checkpoints" / "checkpoint-20"
    cut = folder / "checkpoints" / "checkpoint-40"
    cut.mkdir()
    (cut / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:100])
    run_stage(STAGE, inputs, folder)
    assert_same_weights(folder / "student", finished / "student")


def test_stage_interrupted_before_its_first_checkpoint_starts_over(
    finished: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    folder = tmp_path / "1-both"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(5, patch)
        with pytest.raises(Stopped):
            run_stage(STAGE, inputs, folder)
    run_stage(STAGE, inputs, folder)
    assert_same_weights(folder / "student", finished / "student")


def test_stage_that_was_stopped_while_saving_saves_again(finished: Path, inputs: StageInputs, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "1-both"))
    (folder / "done.json").unlink()
    (folder / "student" / "model.safetensors").unlink()
    (folder / "student.partial").mkdir()
    run_stage(STAGE, inputs, folder)
    assert not (folder / "student.partial").exists()
    assert_same_weights(folder / "student", finished / "student")


def test_length_in_minutes_is_measured_once_and_leaves_no_trace(inputs: StageInputs, tmp_path: Path) -> None:
    folder = tmp_path / "minutes"
    stage = STAGE.model_copy(update={"steps": None, "minutes": 0.005})
    run_stage(stage, inputs, folder)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["steps"] >= FEWEST_STEPS
    assert plan["seconds_a_step"] > 0
    assert not (folder / "calibration").exists()
    counted = run_stage(STAGE.model_copy(update={"steps": plan["steps"]}), inputs, tmp_path / "steps")
    assert_same_weights(folder / "student", counted)


def test_measuring_counts_the_refit_and_changes_nothing(inputs: StageInputs, tmp_path: Path) -> None:
    model = load_model(inputs.student, device="cpu")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    plain, refit = (
        measure_stage(STAGE.model_copy(update={"refit_projection": fits}), inputs, model, 0.4, None, tmp_path)
        for fits in (False, True)
    )
    assert plain.once == 0 < refit.once
    assert min(plain.each, refit.each) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_plan_of_an_interrupted_stage_is_kept(inputs: StageInputs, tmp_path: Path) -> None:
    folder = tmp_path / "1-both"
    folder.mkdir()
    (folder / "plan.json").write_text('{"steps": 4, "seconds_a_step": 1.0}')
    run_stage(STAGE.model_copy(update={"steps": None, "minutes": 60.0}), inputs, folder)
    assert json.loads((folder / "done.json").read_text())["steps"] == 4


def test_stage_without_labelled_rows_learns_from_parallel_text(inputs: StageInputs, tmp_path: Path) -> None:
    stage = STAGE.model_copy(update={"steps": 2})
    assert run_stage(stage, replace(inputs, labelled={}), tmp_path / "1-both").is_dir()
    with pytest.raises(InputError, match="stage both: no rows to learn from"):
        run_stage(stage, replace(inputs, labelled={}, parallel={"de": []}), tmp_path / "2-both")


def test_student_of_another_kind_is_trained_too(plain_student: Path, inputs: StageInputs, tmp_path: Path) -> None:
    stage = Stage(name="plain", steps=4, batch_size=4, learning_rates=LearningRates(encoder=1e-2))
    alike = replace(inputs, student=plain_student, teacher=TorchEncoder.load(plain_student, device="cpu"))
    product = run_stage(stage, alike, tmp_path / "1-plain")
    before, after = (load_model(student, device="cpu").state_dict() for student in (plain_student, product))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("0."))
    assert read_settings(product) is None


@pytest.mark.parametrize("kind", ["two_stream_student", "plain_student"])
def test_every_trained_parameter_has_the_rate_of_its_part(kind: str, request: pytest.FixtureRequest) -> None:
    model = load_model(request.getfixturevalue(kind), device="cpu")
    rates = LearningRates(context=1, embedding=2, encoder=3, projection=4)
    freeze(model, rates)
    patterns = learning_rates(model, rates)
    loss = DistillationLoss(
        model, TeacherVectors(np.zeros((0, 8), np.float16), np.zeros(1, np.int64)), ObjectiveWeights()
    )
    for name, parameter in loss.named_parameters():
        fits = [rate for pattern, rate in patterns.items() if re.search(pattern, name)]
        part = part_of(name.removeprefix("model."))
        assert fits == ([getattr(rates, part)] if part and parameter.requires_grad else [])


def test_student_with_nothing_to_train_is_refused(two_stream_student: Path, plain_student: Path) -> None:
    frozen = LearningRates(**dict.fromkeys(LearningRates.model_fields, 0))
    with pytest.raises(
        UsageError,
        match="give bridge or context or embedding or projection or query_weights or sentence a learning rate",
    ):
        freeze(load_model(two_stream_student, device="cpu"), frozen)
    with pytest.raises(UsageError, match="give encoder or projection"):
        freeze(load_model(plain_student, device="cpu"), frozen)


def test_refitting_changes_the_projection_alone(
    inputs: StageInputs, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.stage, "refit_projection", partial(refit_projection, steps=5))
    stage = STAGE.model_copy(update={"refit_projection": True})
    before, after = weights_of(finished / "student"), weights_of(run_stage(stage, inputs, tmp_path / "1-both"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"1_Dense/linear.weight"}


def test_interpolation_goes_part_of_the_way(inputs: StageInputs, finished: Path, tmp_path: Path) -> None:
    stage = STAGE.model_copy(update={"interpolate": 0.25})
    between = run_stage(stage, inputs, tmp_path / "1-both")
    weights = [
        load_model(student, device="cpu").state_dict() for student in (inputs.student, finished / "student", between)
    ]
    for name, before in weights[0].items():
        expected = torch.lerp(before, weights[1][name], 0.25) if before.is_floating_point() else before
        torch.testing.assert_close(weights[2][name], expected, rtol=1e-5, atol=1e-6)
