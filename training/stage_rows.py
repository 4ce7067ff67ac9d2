"""What a stage of distillation reads, and the rows that it draws from that."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset

from drdecr.encoder.types import Encoder
from drdecr.errors import InputError
from drdecr.progress import ProgressBar
from training.batches import one_kind_a_batch, order_alike
from training.recipe import Stage
from training.rows import Row, draw, language_of
from training.teacher import TeacherTokens, TeacherVectors


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


def draw_rows(stage: Stage, inputs: StageInputs, steps: int) -> tuple[dict[str, list[Row]], dict[str, int]]:
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


def as_dataset(rows: Sequence[Row], numbers: Mapping[str, int]) -> Dataset:
    """Return rows as the trainer reads them; a label is the numbers of a row's English and of its passage."""
    return Dataset.from_dict(
        {
            "query": [row.query for row in rows],
            "passage": [row.passage for row in rows],
            "label": [[numbers[row.english], numbers[row.passage]] for row in rows],
        }
    )


def languages_of(inputs: StageInputs) -> dict[Row, str]:
    """Return the language of every row."""
    sources = [*inputs.parallel.items(), *inputs.labelled.items()]
    return {row: language_of(source) for source, some in sources for row in some}


def in_order(
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
        with ProgressBar(f"{stage.name}: similar passages", len(some), "passages") as bar:
            order = order_alike(passages, teacher, stage.alike, seed, bar.advance)
        return [some[at] for at in order]

    if languages is None:
        return [rows[at] for at in ordered(range(len(rows)))]
    of_language: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        of_language.setdefault(languages[row], []).append(at)
    orders = [ordered(some) for _, some in sorted(of_language.items())]
    return [rows[at] for at in one_kind_a_batch(orders, stage.batch_size, seed)]
