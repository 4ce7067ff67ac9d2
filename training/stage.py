"""Run one stage of distillation on parallel text and labelled queries."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from drdecr.encoder.settings import read_settings
from drdecr.encoder.two_stream import TwoStreamEncoder
from drdecr.progress import ProgressBar
from training.finishing import REFIT_ROWS, interpolate, refit_projection
from training.fit import StageRun, finish, first_alone, fit, open_student
from training.losses.distillation import DistillationLoss
from training.plan import planned_steps
from training.precision import mixed
from training.recipe import Stage
from training.rows import draw
from training.stage_cost import measure_stage
from training.stage_rows import StageInputs, as_dataset, draw_rows, in_order, languages_of
from training.teacher import LiveTeacher, TeacherTokens, TeacherVectors, readings
from training.token_map import token_map

# Rows whose English shows a teacher's principal directions.
_MAP_ROWS = 1000


def run_stage(stage: Stage, inputs: StageInputs, folder: Path) -> Path:
    """Train one stage and return its student directory, `folder`/student.

    A finished stage is returned as it is. A stage that was interrupted goes on from its last checkpoint with the
    same rows in the same order. The number of steps is chosen once and kept in `folder`/plan.json.
    """
    run = StageRun(stage, inputs.student, folder, inputs.seed, inputs.dropout, inputs.bfloat16)
    if run.is_done:
        return run.product
    folder.mkdir(parents=True, exist_ok=True)
    model = open_student(run)
    settings = read_settings(inputs.student)
    weight = 0.0 if settings is None else settings.sentence_weight

    mapped = _token_map(inputs, model, folder)

    steps = planned_steps(run, partial(measure_stage, stage, inputs, model, weight, mapped, folder))
    rows, numbers = draw_rows(stage, inputs, steps)
    held_back = [row for some in inputs.validation.values() for row in some]
    for row in held_back:
        numbers.setdefault(row.english, len(numbers))
    teacher: TeacherTokens
    if stage.teacher_vectors == "live":
        teacher = LiveTeacher(inputs.teacher, list(numbers))
    else:
        first_alone(lambda: _compute(stage, inputs, numbers, folder))
        teacher = TeacherVectors.compute(inputs.teacher, list(numbers), folder / "teacher")
    loss = DistillationLoss(model, teacher, stage.objectives, weight, mapped)
    languages = languages_of(inputs) if stage.one_language else None
    data = {
        kind: as_dataset(in_order(some, numbers, teacher, stage, inputs.seed, languages), numbers)
        for kind, some in rows.items()
    }
    # The loss over a batch has a meaning only over a whole one.
    validates = len(held_back) >= stage.batch_size
    history = fit(run, model, loss, data, steps, validation=as_dataset(held_back, numbers) if validates else None)
    interpolate(model, inputs.student, stage.interpolate)
    if stage.refit_projection:
        shown = [row for some in rows.values() for row in some[:REFIT_ROWS]]
        with mixed(bfloat16=inputs.bfloat16):
            refit_projection(model, shown)
    product = finish(run, model, steps, history)
    first_alone(lambda: shutil.rmtree(folder / "teacher", ignore_errors=True))
    return product


def _token_map(inputs: StageInputs, model: MultiVectorEncoder, folder: Path) -> Tensor | None:
    """Find what takes the teacher's tokens to the width of those that the student compares."""
    encoder = model[0]
    embedded = isinstance(encoder, TwoStreamEncoder)
    width = int(encoder.context.config.hidden_size if embedded else model.get_embedding_dimension())
    shown = [row.english for row in draw(dict(inputs.parallel or inputs.labelled), _MAP_ROWS, 0)]
    return token_map(inputs.teacher, width, shown, inputs.maps or folder)


def _compute(stage: Stage, inputs: StageInputs, numbers: Mapping[str, int], folder: Path) -> None:
    with (
        ProgressBar(f"{stage.name}: teacher", len(numbers) * readings(inputs.teacher), "texts") as bar,
        mixed(bfloat16=inputs.bfloat16),
    ):
        TeacherVectors.compute(inputs.teacher, list(numbers), folder / "teacher", progress=bar.advance)
