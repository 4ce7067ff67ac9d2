"""From row numbers to token ids: what the trainer feeds to a ranking stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from drdecr.encoder.torch_runtime import TASKS
from drdecr.encoder.types import Kind
from training.candidates.lists import CandidateLists, english_of
from training.literal import LiteralInputs


@dataclass(frozen=True, slots=True)
class TextInputs:
    """Tokenises the texts of one side as the student reads them: with its prompt, cut to the stage's lengths."""

    model: MultiVectorEncoder
    query_tokens: int
    passage_tokens: int
    literal: LiteralInputs | None = None

    def __call__(self, texts: Sequence[str], kind: Kind) -> dict[str, Tensor]:
        task = TASKS[kind]
        prompt = (self.model.prompts or {}).get(task)
        length = self.query_tokens if kind == "query" else self.passage_tokens
        features: dict[str, Tensor] = self.model.preprocess(list(texts), prompt=prompt, task=task, max_length=length)
        return features if self.literal is None else self.literal(features, kind)


@dataclass(slots=True)
class CandidateCollator:
    """Reads and tokenises the rows of a batch; the passages of all rows become one column, (rows x ways, tokens).

    `targets` are the teacher's scores (all rows, ways); without them the labels are 0 and mean nothing. With
    `english` the teacher's queries are a column too, for a teacher that is asked at every step.
    """

    inputs: TextInputs
    lists: CandidateLists
    targets: NDArray[np.float32] | None = None
    english: bool = False
    # What the trainer reads of any collator.
    valid_label_columns: list[str] = field(default_factory=lambda: ["label"])

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [self.lists[int(one["row"])] for one in features]
        columns = {
            "query": self.inputs([row.query for row in rows], "query"),
            "passage": self.inputs([passage for row in rows for passage in row.passages], "passage"),
        }
        if self.english:
            columns["english"] = self.inputs([english_of(row) for row in rows], "query")
        batch: dict[str, Any] = {}
        for name, some in columns.items():
            batch |= {f"{name}_{key}": value for key, value in some.items()}
        if self.targets is None:
            batch["label"] = torch.zeros(len(rows), len(rows[0].passages))
        else:
            batch["label"] = torch.from_numpy(np.stack([self.targets[int(one["row"])] for one in features]))
        return batch
