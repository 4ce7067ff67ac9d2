"""Run one stage that learns from candidate lists: the teacher's own training, the student's start, relevance KD."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder

from drdecr.encoder.settings import read_settings
from drdecr.encoder.torch_runtime import TorchEncoder, load_model
from drdecr.errors import InputError
from drdecr.progress import ProgressBar
from training.candidates.collator import CandidateCollator, TextInputs
from training.candidates.lists import CandidateLists, answers_of, random_lists
from training.candidates.mining import mine_lists
from training.candidates.published import open_lists
from training.candidates.scores import CrossEncoderScorer, Scorer, TeacherScorer, stored_scores
from training.finishing import interpolate
from training.fit import StageRun, finish, first_alone, fit, open_student, require_one_tokenizer
from training.literal import LiteralInputs
from training.losses.ranking import RankingLoss
from training.plan import StageCost, planned_steps
from training.precision import mixed
from training.recipe import RankingStage
from training.rows import Row, draw

_CALIBRATION_STEPS = 4


@dataclass(frozen=True)
class RankingInputs:
    """What a ranking stage learns from. `labelled` and `parallel` are rows by set and language.

    `longest_passage` is what the passages of `labelled` are cut to, in characters.
    """

    labelled: Mapping[str, list[Row]]
    parallel: Mapping[str, list[Row]]
    cache: Path
    teacher: Path | None = None
    cross_encoder: Path | None = None
    longest_passage: int | None = None

    @cached_property
    def teacher_encoder(self) -> TorchEncoder:
        assert self.teacher is not None
        return TorchEncoder.load(self.teacher)


def run_ranking(run: StageRun, inputs: RankingInputs) -> Path:
    """Train one stage on candidate lists and return its student directory.

    Finished and interrupted stages are treated as those of `run_stage`. Raises: InputError, ModelError.
    """
    stage = run.stage
    assert isinstance(stage, RankingStage)
    if run.is_done:
        return run.product
    run.folder.mkdir(parents=True, exist_ok=True)
    model = open_student(run)
    texts = TextInputs(model, stage.query_tokens, stage.passage_tokens, _literal(stage, model))
    settings = read_settings(run.student)
    live = None
    if stage.objective == "kl" and stage.scores == "live":
        assert inputs.teacher is not None
        live = load_model(inputs.teacher, device=str(model.device))
        require_one_tokenizer(run, model, live, inputs.teacher)
    loss = RankingLoss(model, stage, 0.0 if settings is None else settings.sentence_weight, live)

    steps = planned_steps(run, lambda: StageCost(_seconds_a_step(run, inputs, texts, loss)))
    lists = _lists(run, inputs, steps)
    targets = _targets(run, inputs, lists)
    collator = CandidateCollator(texts, lists, targets, english=live is not None, answers=_answers(run, inputs))
    history = fit(run, model, loss, Dataset.from_dict({"row": range(len(lists))}), steps, collator=collator)
    interpolate(model, run.student, stage.interpolate)
    return finish(run, model, steps, history)


def _lists(run: StageRun, inputs: RankingInputs, steps: int) -> CandidateLists:
    """Open or make as many rows as the stage needs, in the order in which they are learned from."""
    stage = run.stage
    assert isinstance(stage, RankingStage)
    wanted = steps * stage.batch_size
    if stage.lists is not None:
        return open_lists(stage.lists, stage.ways, wanted, run.seed)
    rows = draw(dict(inputs.labelled if stage.rows == "labelled" else inputs.parallel), wanted, run.seed)
    if not rows:
        raise InputError(f"stage {stage.name}: no {stage.rows} rows to learn from")
    everything = [row for some in inputs.labelled.values() for row in some]
    if stage.mine is None:
        return random_lists(rows, everything, stage.ways, run.seed)
    with ProgressBar(f"{stage.name}: mining", len({row.english for row in rows}), "queries") as bar:
        return mine_lists(
            rows,
            inputs.teacher_encoder,
            stage.mine,
            stage.ways,
            run.seed,
            labelled=everything if stage.rows == "labelled" else None,
            longest=inputs.longest_passage,
            progress=bar.advance,
        )


def _targets(run: StageRun, inputs: RankingInputs, lists: CandidateLists) -> NDArray[np.float32] | None:
    stage = run.stage
    assert isinstance(stage, RankingStage)
    if stage.objective == "cross-entropy" or stage.scores == "live":
        return None
    if stage.scores == "file":
        return _of_file(stage, lists)
    scorer: Scorer
    if stage.scores == "cross-encoder":
        assert inputs.cross_encoder is not None
        scorer = CrossEncoderScorer(inputs.cross_encoder)
    else:
        scorer = TeacherScorer(inputs.teacher_encoder, mean=stage.mean_maxsim)

    def compute() -> None:
        with ProgressBar(f"{stage.name}: scores", len(lists), "lists") as bar, mixed(bfloat16=run.bfloat16):
            stored_scores(scorer, lists, stage.ways, inputs.cache, progress=bar.advance)

    first_alone(compute)
    return stored_scores(scorer, lists, stage.ways, inputs.cache)


def _of_file(stage: RankingStage, lists: CandidateLists) -> NDArray[np.float32]:
    assert stage.lists is not None
    if lists[0].scores is None:
        raise InputError("holds no scores; write `[passage, score]`, or choose other `scores`", path=stage.lists.file)
    return np.array([lists[row].scores for row in range(len(lists))], np.float32)


def _answers(run: StageRun, inputs: RankingInputs) -> dict[str, set[str]] | None:
    """Return what answers each query where the candidates of other rows compete, else None."""
    stage = run.stage
    assert isinstance(stage, RankingStage)
    if stage.objective != "cross-entropy" or not stage.in_batch:
        return None
    return answers_of(row for some in inputs.labelled.values() for row in some)


def _literal(stage: RankingStage, model: MultiVectorEncoder) -> LiteralInputs | None:
    if stage.literal is None:
        return None
    return LiteralInputs(stage.literal, model.tokenizer, stage.query_tokens, stage.passage_tokens)


def _seconds_a_step(run: StageRun, inputs: RankingInputs, texts: TextInputs, loss: RankingLoss) -> float:
    """Measure real forward and backward passes, the teacher's share included; no weight changes."""
    lists = _lists(run, inputs, _CALIBRATION_STEPS)
    started = time.perf_counter()
    calibration = replace(inputs, cache=run.folder / "calibration")
    targets = _targets(run, calibration, lists)
    taught = (time.perf_counter() - started) / _CALIBRATION_STEPS
    shutil.rmtree(run.folder / "calibration", ignore_errors=True)
    answers = _answers(run, inputs)
    collator = CandidateCollator(texts, lists, targets, english=loss.has_live_teacher, answers=answers)
    size = run.stage.batch_size // run.stage.accumulate
    elapsed = []
    for step in range(_CALIBRATION_STEPS):
        started = time.perf_counter()
        with mixed(bfloat16=run.bfloat16):
            value = loss(
                *columns_of(collator([{"row": row} for row in _rows(step, size, len(lists))]), texts.model.device)
            )
        value.backward()
        loss.zero_grad()
        elapsed.append(time.perf_counter() - started)
    # The first step pays for warming up.
    return sum(elapsed[1:]) / (len(elapsed) - 1) * run.stage.accumulate + taught


def _rows(step: int, size: int, available: int) -> Sequence[int]:
    return [row % available for row in range(step * size, (step + 1) * size)]


def columns_of(batch: Mapping[str, Any], device: torch.device) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Split a collated batch into the features of each column and the labels, as the trainer does."""
    columns = []
    for name in ("query", "passage", "english"):
        prefix = f"{name}_"
        features = {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}
        if features:
            columns.append(
                {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}
            )
    return columns, batch["label"].to(device)
