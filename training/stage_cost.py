"""How long the steps of a stage take, and what comes after them: measured before the first one."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from sentence_transformers import MultiVectorEncoder
from torch import Tensor, nn

from drdecr.encoder.two_stream import TwoStreamEncoder
from training.candidates.collator import TextInputs
from training.finishing import REFIT_ROWS, refit_features
from training.losses.distillation import DistillationLoss
from training.plan import StageCost
from training.precision import mixed
from training.recipe import Stage
from training.rows import Row
from training.stage_rows import StageInputs, as_dataset, draw_rows
from training.teacher import TeacherVectors
from training.transfer.projection import STEPS as PROJECTION_STEPS
from training.transfer.projection import fit_projection

_Result = TypeVar("_Result")

_CALIBRATION_STEPS = 5
# Of each kind, and of the fit: what shows how long `refit_projection` will take.
_TIMED_ROWS = 50
_TIMED_STEPS = 8


def measure_stage(
    stage: Stage,
    inputs: StageInputs,
    model: MultiVectorEncoder,
    sentence_weight: float,
    mapped: Tensor | None,
    folder: Path,
) -> StageCost:
    """Measure real steps on a copy of the student, the teacher's share included, and what comes after them."""
    trial = copy.deepcopy(model)
    steps = 2 * _CALIBRATION_STEPS
    started = time.perf_counter()
    rows, numbers = draw_rows(stage, inputs, steps)
    with mixed(bfloat16=inputs.bfloat16):
        teacher = TeacherVectors.compute(inputs.teacher, list(numbers), folder / "calibration")
    taught = (time.perf_counter() - started) / steps
    loss = DistillationLoss(trial, teacher, stage.objectives, sentence_weight, mapped)
    optimizer = torch.optim.AdamW([p for p in trial.parameters() if p.requires_grad], lr=1e-9, fused=True)
    trial.train()
    elapsed: list[float] = []
    size = stage.batch_size // stage.accumulate
    for dataset in (as_dataset(some, numbers) for some in rows.values()):
        for first in range(0, min(len(dataset), _CALIBRATION_STEPS * size), size):
            started = time.perf_counter()
            with mixed(bfloat16=inputs.bfloat16):
                terms = _terms(trial, loss, dataset[first : first + size], stage)
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
            elapsed.append(time.perf_counter() - started)
    shutil.rmtree(folder / "calibration", ignore_errors=True)
    # The first step pays for warming up.
    step = sum(elapsed[1:]) / max(len(elapsed) - 1, 1) * stage.accumulate
    if not stage.refit_projection:
        return StageCost(step + taught)
    with mixed(bfloat16=inputs.bfloat16):
        return StageCost(step + taught, once=_seconds_to_refit(trial, rows))


def _seconds_to_refit(trial: MultiVectorEncoder, rows: Mapping[str, list[Row]]) -> float:
    """Measure the reading of a few rows of each kind and a few steps of fitting a projection to them."""
    encoder = trial[0]
    if not isinstance(encoder, TwoStreamEncoder):
        return 0.0
    few = [row for some in rows.values() for row in some[:_TIMED_ROWS]]
    refit_features(encoder, few)
    reading, features = _timed(lambda: refit_features(encoder, few))
    dim = trial[1].linear.out_features
    starting, _ = _timed(lambda: fit_projection(*features, dim, steps=0))
    fitting, _ = _timed(lambda: fit_projection(*features, dim, steps=_TIMED_STEPS))
    a_step = max(fitting - starting, 0.0) / _TIMED_STEPS
    return reading * REFIT_ROWS / _TIMED_ROWS + starting + a_step * PROJECTION_STEPS


def _timed(work: Callable[[], _Result]) -> tuple[float, _Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _terms(model: MultiVectorEncoder, loss: nn.Module, batch: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    device = model.device
    read = TextInputs(model, stage.query_tokens, stage.passage_tokens)
    sides: Sequence[dict[str, Any]] = [read(batch["query"], "query"), read(batch["passage"], "passage")]
    sides = [
        {key: value.to(device) if hasattr(value, "to") else value for key, value in one.items()} for one in sides
    ]
    terms: dict[str, Any] = loss(sides, torch.tensor(batch["label"], device=device))
    return terms
