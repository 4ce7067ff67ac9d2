"""Run one stage of distillation on parallel text and labelled queries."""

from __future__ import annotations

import copy
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import MultiVectorEncoder
from torch import Tensor, nn

from drdecr.encoder.settings import read_settings
from drdecr.encoder.torch_runtime import load_model
from drdecr.encoder.two_stream import TwoStreamEncoder
from drdecr.encoder.types import Encoder
from drdecr.errors import InputError
from training.batches import one_kind_a_batch, order_alike
from training.candidates.collator import TextInputs
from training.fit import StageRun, finish, first_alone, fit, open_student, planned_steps
from training.losses.distillation import DistillationLoss
from training.precision import mixed
from training.progress import StageProgress
from training.recipe import Stage
from training.rows import Row, draw, language_of
from training.teacher import LiveTeacher, TeacherTokens, TeacherVectors
from training.token_map import token_map
from training.transfer.base import token_features
from training.transfer.projection import fit_projection

CALIBRATION_STEPS = 5
# Rows of each kind, and characters of a text, that show a projection where the token features lie.
_REFIT_ROWS = 800
_REFIT_CHARACTERS = 150
# Rows whose English shows a teacher's principal directions.
_MAP_ROWS = 1000


@dataclass(frozen=True, slots=True)
class StageInputs:
    """What a stage starts from. `parallel` and `labelled` are rows by language.

    `maps` is the folder that the stages of a run share for what `token_map` finds; by default the stage's own.
    """

    student: Path
    teacher: Encoder
    parallel: Mapping[str, list[Row]]
    labelled: Mapping[str, list[Row]]
    seed: int
    dropout: float = 0.0
    bfloat16: bool = False
    validation: Mapping[str, list[Row]] = field(default_factory=dict)
    maps: Path | None = None


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

    steps = planned_steps(run, partial(_seconds_a_step, stage, inputs, model, weight, mapped, folder))
    rows, numbers = _draw_rows(stage, inputs, steps)
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
    languages = _languages(inputs) if stage.one_language else None
    data = {
        kind: _dataset(_ordered(some, numbers, teacher, stage, inputs.seed, languages), numbers)
        for kind, some in rows.items()
    }
    # The loss over a batch has a meaning only over a whole one.
    validates = len(held_back) >= stage.batch_size
    history = fit(run, model, loss, data, steps, validation=_dataset(held_back, numbers) if validates else None)
    interpolate(model, inputs.student, stage.interpolate)
    if stage.refit_projection:
        shown = [row for some in rows.values() for row in some[:_REFIT_ROWS]]
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
    with StageProgress(f"{stage.name}: teacher", len(numbers)) as bar, mixed(bfloat16=inputs.bfloat16):
        TeacherVectors.compute(inputs.teacher, list(numbers), folder / "teacher", progress=bar.advance)


@torch.no_grad()
def interpolate(model: MultiVectorEncoder, before: Path, share: float) -> None:
    """Put each parameter at `share` of the way from what it was in the student `before` to what it is now."""
    if share < 1:
        started_from = load_model(before, device=None)
        for now, then in zip(model.parameters(), started_from.parameters(), strict=True):
            now.copy_(torch.lerp(then.to(now.device), now, share))


def refit_projection(model: MultiVectorEncoder, rows: Sequence[Row]) -> None:
    """Fit an embedded student's projection anew to the features that its streams give after training.

    Leaves a student of another kind as it is.
    """
    encoder = model[0]
    if not isinstance(encoder, TwoStreamEncoder):
        return
    encoder.eval()
    linear = model[1].linear
    sides = (
        [text[:_REFIT_CHARACTERS] for text in texts]
        for texts in zip(*((r.query, r.passage) for r in rows), strict=True)
    )
    queries, passages = (token_features(encoder, texts) for texts in sides)
    fitted = fit_projection(queries, passages, linear.out_features)
    with torch.no_grad():
        linear.weight.copy_(fitted)


def _draw_rows(stage: Stage, inputs: StageInputs, steps: int) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """Draw the rows of a stage by kind; also number the English texts in them, which the teacher reads.

    Raises: InputError where there is nothing to draw.
    """
    share = stage.labelled_share if any(inputs.labelled.values()) else 0.0
    batches = {"labelled": round(steps * share)}
    batches["parallel"] = steps - batches["labelled"]
    kinds = {"labelled": inputs.labelled, "parallel": inputs.parallel}
    drawn = {
        kind: draw(dict(rows), batches[kind] * stage.batch_size, inputs.seed, stage.emphasis)
        for kind, rows in kinds.items()
    }
    if not any(drawn.values()):
        raise InputError(f"stage {stage.name}: no rows to learn from")
    texts = (text for rows in drawn.values() for row in rows for text in (row.english, row.passage))
    return {kind: rows for kind, rows in drawn.items() if rows}, {
        text: i for i, text in enumerate(dict.fromkeys(texts))
    }


def _dataset(rows: Sequence[Row], numbers: Mapping[str, int]) -> Dataset:
    return Dataset.from_dict(
        {
            "query": [row.query for row in rows],
            "passage": [row.passage for row in rows],
            "label": [[numbers[row.english], numbers[row.passage]] for row in rows],
        }
    )


def _languages(inputs: StageInputs) -> dict[Row, str]:
    sources = [*inputs.parallel.items(), *inputs.labelled.items()]
    return {row: language_of(source) for source, some in sources for row in some}


def _ordered(
    rows: list[Row],
    numbers: Mapping[str, int],
    teacher: TeacherTokens,
    stage: Stage,
    seed: int,
    languages: Mapping[Row, str] | None,
) -> list[Row]:
    """Order rows for their batches. `languages` are those of the rows, where each batch has one."""

    def ordered(some: Sequence[int]) -> list[int]:
        if not isinstance(teacher, TeacherVectors):
            return random.Random(seed).sample(some, len(some))
        passages = [numbers[rows[at].passage] for at in some]
        with StageProgress(f"{stage.name}: similar passages", len(some)) as bar:
            order = order_alike(passages, teacher, stage.alike, seed, bar.advance)
        return [some[at] for at in order]

    if languages is None:
        return [rows[at] for at in ordered(range(len(rows)))]
    of_language: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        of_language.setdefault(languages[row], []).append(at)
    orders = [ordered(some) for _, some in sorted(of_language.items())]
    return [rows[at] for at in one_kind_a_batch(orders, stage.batch_size, seed)]


def _seconds_a_step(
    stage: Stage,
    inputs: StageInputs,
    model: MultiVectorEncoder,
    sentence_weight: float,
    mapped: Tensor | None,
    folder: Path,
) -> float:
    """Measure real steps on a copy of the student, the teacher's share included."""
    trial = copy.deepcopy(model)
    steps = 2 * CALIBRATION_STEPS
    started = time.perf_counter()
    rows, numbers = _draw_rows(stage, inputs, steps)
    with mixed(bfloat16=inputs.bfloat16):
        teacher = TeacherVectors.compute(inputs.teacher, list(numbers), folder / "calibration")
    taught = (time.perf_counter() - started) / steps
    loss = DistillationLoss(trial, teacher, stage.objectives, sentence_weight, mapped)
    optimizer = torch.optim.AdamW([p for p in trial.parameters() if p.requires_grad], lr=1e-9, fused=True)
    trial.train()
    elapsed: list[float] = []
    size = stage.batch_size // stage.accumulate
    for dataset in (_dataset(some, numbers) for some in rows.values()):
        for first in range(0, min(len(dataset), CALIBRATION_STEPS * size), size):
            started = time.perf_counter()
            with mixed(bfloat16=inputs.bfloat16):
                terms = _terms(trial, loss, dataset[first : first + size], stage)
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
            elapsed.append(time.perf_counter() - started)
    shutil.rmtree(folder / "calibration", ignore_errors=True)
    # The first step pays for warming up.
    return sum(elapsed[1:]) / max(len(elapsed) - 1, 1) * stage.accumulate + taught


def _terms(model: MultiVectorEncoder, loss: nn.Module, batch: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    device = model.device
    read = TextInputs(model, stage.query_tokens, stage.passage_tokens)
    sides: Sequence[dict[str, Any]] = [read(batch["query"], "query"), read(batch["passage"], "passage")]
    sides = [
        {key: value.to(device) if hasattr(value, "to") else value for key, value in one.items()} for one in sides
    ]
    terms: dict[str, Any] = loss(sides, torch.tensor(batch["label"]))
    return terms
