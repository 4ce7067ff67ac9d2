"""Run token KD as the released code does it, for comparison with published checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from drdecr.encoder.torch_runtime import load_model
from drdecr.errors import ModelError
from training.candidates.collator import CandidateCollator, TextInputs
from training.candidates.lists import Candidates, GivenLists
from training.finishing import interpolate
from training.fit import StageRun, finish, fit, open_student, require_one_tokenizer
from training.literal import LiteralInputs
from training.losses.literal import LiteralTokenKD
from training.plan import StageCost, planned_steps
from training.precision import mixed
from training.ranking import columns_of
from training.recipe import LiteralStage
from training.rows import Row, draw

_CALIBRATION_STEPS = 4


def run_literal(run: StageRun, parallel: Mapping[str, list[Row]], teacher: Path) -> Path:
    """Train one stage and return its student directory.

    Raises: ModelError where teacher and student do not share one vocabulary and one width.
    """
    stage = run.stage
    assert isinstance(stage, LiteralStage)
    run.folder.mkdir(parents=True, exist_ok=True)
    model = open_student(run)
    taught_by = load_model(teacher, device=str(model.device))
    require_one_tokenizer(run, model, taught_by, teacher)
    if model.get_embedding_dimension() != taught_by.get_embedding_dimension():
        raise ModelError(f"stage {stage.name}: literal token KD needs one width; {teacher} has another")
    texts = TextInputs(
        model,
        stage.query_tokens,
        stage.passage_tokens,
        LiteralInputs(stage.literal, model.tokenizer, stage.query_tokens, stage.passage_tokens),
    )
    loss = LiteralTokenKD(model, taught_by, stage)

    def collator_of(steps: int) -> CandidateCollator:
        rows = draw(dict(parallel), steps * stage.batch_size, run.seed)
        lists = GivenLists([Candidates(row.query, row.english, (row.english,)) for row in rows])
        return CandidateCollator(texts, lists, english=True)

    def seconds_a_step() -> float:
        collator = collator_of(_CALIBRATION_STEPS)
        size = stage.batch_size // stage.accumulate
        elapsed = []
        for step in range(_CALIBRATION_STEPS):
            started = time.perf_counter()
            batch = collator([{"row": row} for row in range(step * size, (step + 1) * size)])
            with mixed(bfloat16=run.bfloat16):
                terms = loss(*columns_of(batch, model.device))
            (terms["token_query"] + terms["token_passage"]).backward()
            loss.zero_grad()
            elapsed.append(time.perf_counter() - started)
        return sum(elapsed[1:]) / (len(elapsed) - 1) * stage.accumulate

    steps = planned_steps(run, lambda: StageCost(seconds_a_step()))
    collator = collator_of(steps)
    history = fit(run, model, loss, Dataset.from_dict({"row": range(len(collator.lists))}), steps, collator=collator)
    interpolate(model, run.student, stage.interpolate)
    return finish(run, model, steps, history)
