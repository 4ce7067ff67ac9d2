"""Run one stage of distillation on sentence-transformers' trainer."""

from __future__ import annotations

import copy
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer
from sentence_transformers.base.training_args import MultiDatasetBatchSamplers
from sentence_transformers.multi_vector_encoder.training_args import MultiVectorEncoderTrainingArguments
from torch import nn
from torch.utils.tensorboard.writer import SummaryWriter
from transformers import PrinterCallback, ProgressCallback
from transformers.integrations import TensorBoardCallback

from drdecr.encoder.settings import SETTINGS_FILE, read_settings
from drdecr.encoder.torch_runtime import load_model
from drdecr.encoder.two_stream import TwoStreamEncoder
from drdecr.encoder.types import Encoder
from drdecr.errors import InputError, UsageError
from training.batches import InOrder, order_alike
from training.checkpoints import MarksCheckpoints, last_whole_checkpoint, write_json
from training.losses.distillation import DistillationLoss
from training.precision import mixed
from training.progress import StageProgress
from training.recipe import LearningRates, Stage
from training.rows import Row, draw
from training.teacher import TeacherVectors
from training.transfer.base import token_features
from training.transfer.projection import fit_projection

CALIBRATION_STEPS = 5
FEWEST_STEPS = 10
# Rows of each kind, and characters of a text, that show a projection where the token features lie.
_REFIT_ROWS = 800
_REFIT_CHARACTERS = 150


@dataclass(frozen=True, slots=True)
class StageInputs:
    """What a stage starts from. `parallel` and `labelled` are rows by language."""

    student: Path
    teacher: Encoder
    parallel: Mapping[str, list[Row]]
    labelled: Mapping[str, list[Row]]
    seed: int
    dropout: float = 0.0
    bfloat16: bool = False


def run_stage(stage: Stage, inputs: StageInputs, folder: Path) -> Path:
    """Train one stage and return its student directory, `folder`/student.

    A finished stage is returned as it is. A stage that was interrupted goes on from its last checkpoint with the
    same rows in the same order. The number of steps is chosen once and kept in `folder`/plan.json.
    """
    product = folder / "student"
    if (folder / "done.json").is_file():
        return product
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(inputs.student, device=None)
    # With one there, the trainer makes no examples for a model card that is never written.
    model.model_card_data.widget = [{}]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = inputs.dropout
    freeze(model, stage.learning_rates)
    settings = read_settings(inputs.student)
    weight = 0.0 if settings is None else settings.sentence_weight

    steps = _planned_steps(stage, inputs, model, weight, folder)
    rows, numbers = _draw_rows(stage, inputs, steps)
    with StageProgress(f"{stage.name}: teacher", len(numbers)) as bar, mixed(bfloat16=inputs.bfloat16):
        teacher = TeacherVectors.compute(inputs.teacher, list(numbers), folder / "teacher", progress=bar.advance)
    loss = DistillationLoss(model, teacher, stage.objectives, weight)
    trainer = MultiVectorEncoderTrainer(
        model=model,
        args=_arguments(stage, inputs, steps, folder, learning_rates(model, stage.learning_rates)),
        train_dataset={
            kind: _dataset(_ordered(some, numbers, teacher, stage, inputs.seed), numbers)
            for kind, some in rows.items()
        },
        loss=loss,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(StageProgress(stage.name, steps).callback())
    trainer.add_callback(MarksCheckpoints())
    checkpoints = folder / "checkpoints"
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        trainer.add_callback(TensorBoardCallback(writer))
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    interpolate(model, load_model(inputs.student, device=None), stage.interpolate)
    if stage.refit_projection:
        shown = [row for some in rows.values() for row in some[:_REFIT_ROWS]]
        with mixed(bfloat16=inputs.bfloat16):
            refit_projection(model, shown)
    save_student(model, inputs.student, product)
    write_json(folder / "done.json", {"steps": steps, "history": trainer.state.log_history})
    shutil.rmtree(checkpoints, ignore_errors=True)
    shutil.rmtree(folder / "teacher", ignore_errors=True)
    return product


@torch.no_grad()
def interpolate(model: MultiVectorEncoder, before: MultiVectorEncoder, share: float) -> None:
    """Put each parameter at `share` of the way from what it was before the stage to what it is now."""
    if share < 1:
        for now, then in zip(model.parameters(), before.parameters(), strict=True):
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


def freeze(model: MultiVectorEncoder, rates: LearningRates) -> None:
    """Leave only the parameters with a rate above 0 to be trained; the n-gram stream never is.

    Raises: UsageError where that leaves none.
    """
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part is not None and getattr(rates, part) > 0)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        parts = sorted({part for name, _ in model.named_parameters() if (part := part_of(name))})
        raise UsageError(f"nothing would be trained; give {' or '.join(parts)} a learning rate above 0")


def learning_rates(model: MultiVectorEncoder, rates: LearningRates) -> dict[str, float]:
    """Return patterns of the names that parameters have inside the loss, with the rate of each part.

    The trainer refuses a pattern that fits no parameter, so a part that is not there or frozen has none.
    """
    names: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part is not None and parameter.requires_grad:
            names.setdefault(part, []).append(re.escape(name))
    return {rf"^model\.(?:{'|'.join(some)})$": getattr(rates, part) for part, some in names.items()}


def part_of(parameter: str) -> str | None:
    """Name the part of `LearningRates` that a parameter belongs to; None for one that is never trained."""
    if ".ngram." in parameter or parameter.endswith("context.embedding.weights"):
        return None
    if ".context.embedding." in parameter:
        return "embedding"
    if ".sentence_head." in parameter:
        return "sentence"
    if ".context." in parameter:
        return "context"
    return "encoder" if parameter.startswith("0.") else "projection"


def save_student(model: MultiVectorEncoder, origin: Path, product: Path) -> None:
    """Save a student with the settings of the one it came from, as a whole or not at all."""
    partial = product.with_name(product.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), create_model_card=False)
    if (origin / SETTINGS_FILE).is_file():
        shutil.copy(origin / SETTINGS_FILE, partial / SETTINGS_FILE)
    shutil.rmtree(product, ignore_errors=True)
    partial.rename(product)


def _draw_rows(stage: Stage, inputs: StageInputs, steps: int) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """Draw the rows of a stage by kind; also number the English texts in them, which the teacher reads.

    Raises: InputError where there is nothing to draw.
    """
    share = stage.labelled_share if any(inputs.labelled.values()) else 0.0
    batches = {"labelled": round(steps * share)}
    batches["parallel"] = steps - batches["labelled"]
    kinds = {"labelled": inputs.labelled, "parallel": inputs.parallel}
    drawn = {kind: draw(dict(rows), batches[kind] * stage.batch_size, inputs.seed) for kind, rows in kinds.items()}
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


def _ordered(
    rows: list[Row], numbers: Mapping[str, int], teacher: TeacherVectors, stage: Stage, seed: int
) -> list[Row]:
    return [rows[at] for at in order_alike([numbers[row.passage] for row in rows], teacher, stage.alike, seed)]


def _arguments(
    stage: Stage, inputs: StageInputs, steps: int, folder: Path, rates: dict[str, float]
) -> MultiVectorEncoderTrainingArguments:
    return MultiVectorEncoderTrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=stage.batch_size,
        learning_rate_mapping=rates,
        lr_scheduler_type="linear",
        warmup_steps=round(steps * stage.warmup_share),
        weight_decay=0.0,
        max_grad_norm=2.0,
        adam_epsilon=1e-8,
        seed=inputs.seed,
        data_seed=inputs.seed,
        bf16=inputs.bfloat16,
        batch_sampler=InOrder,
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
        max_length={"query": stage.query_tokens, "document": stage.passage_tokens},
        dataloader_drop_last=True,
        save_steps=max(20, steps // 4),
        # Two, so that one is whole while the other is being written.
        save_total_limit=2,
        logging_steps=max(1, steps // 50),
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )


def _planned_steps(
    stage: Stage, inputs: StageInputs, model: MultiVectorEncoder, sentence_weight: float, folder: Path
) -> int:
    plan = folder / "plan.json"
    if plan.is_file():
        return int(json.loads(plan.read_text())["steps"])
    if stage.steps is not None:
        steps, seconds = stage.steps, None
    else:
        assert stage.minutes is not None
        seconds = _seconds_a_step(stage, inputs, model, sentence_weight, folder)
        steps = max(FEWEST_STEPS, int(stage.minutes * 60 / seconds))
    write_json(plan, {"steps": steps, "seconds_a_step": seconds})
    return steps


def _seconds_a_step(
    stage: Stage, inputs: StageInputs, model: MultiVectorEncoder, sentence_weight: float, folder: Path
) -> float:
    """Measure real steps on a copy of the student, the teacher's share included."""
    trial = copy.deepcopy(model)
    steps = 2 * CALIBRATION_STEPS
    started = time.perf_counter()
    rows, numbers = _draw_rows(stage, inputs, steps)
    with mixed(bfloat16=inputs.bfloat16):
        teacher = TeacherVectors.compute(inputs.teacher, list(numbers), folder / "calibration")
    taught = (time.perf_counter() - started) / steps
    loss = DistillationLoss(trial, teacher, stage.objectives, sentence_weight)
    optimizer = torch.optim.AdamW([p for p in trial.parameters() if p.requires_grad], lr=1e-9, fused=True)
    trial.train()
    elapsed: list[float] = []
    for dataset in (_dataset(some, numbers) for some in rows.values()):
        for first in range(0, min(len(dataset), CALIBRATION_STEPS * stage.batch_size), stage.batch_size):
            started = time.perf_counter()
            with mixed(bfloat16=inputs.bfloat16):
                terms = _terms(trial, loss, dataset[first : first + stage.batch_size], stage)
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
            elapsed.append(time.perf_counter() - started)
    shutil.rmtree(folder / "calibration", ignore_errors=True)
    # The first step pays for warming up.
    return sum(elapsed[1:]) / max(len(elapsed) - 1, 1) + taught


def _terms(model: MultiVectorEncoder, loss: nn.Module, batch: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    device = model.device
    sides: Sequence[dict[str, Any]] = [
        model.preprocess(batch["query"], task="query", max_length=stage.query_tokens),
        model.preprocess(batch["passage"], task="document", max_length=stage.passage_tokens),
    ]
    sides = [
        {key: value.to(device) if hasattr(value, "to") else value for key, value in one.items()} for one in sides
    ]
    terms: dict[str, Any] = loss(sides, torch.tensor(batch["label"]))
    return terms
