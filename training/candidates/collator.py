"""From row numbers to token ids: what the trainer feeds to a ranking stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from drdecr.encoder.torch_runtime import TASKS
from drdecr.encoder.types import Kind
from training.candidates.lists import CandidateLists, Candidates, english_of
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
    `english` the teacher's queries are a column too, for a teacher that is asked at every step. With `answers`, all
    that is known to answer each English query, the labels are what `passage_numbers` returns.
    """

    inputs: TextInputs
    lists: CandidateLists
    targets: NDArray[np.float32] | None = None
    english: bool = False
    answers: Mapping[str, set[str]] | None = None
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
        if self.answers is not None:
            batch["label"] = passage_numbers(rows, self.answers)
        elif self.targets is None:
            batch["label"] = torch.zeros(len(rows), len(rows[0].passages))
        else:
            batch["label"] = torch.from_numpy(np.stack([self.targets[int(one["row"])] for one in features]))
        return batch


def passage_numbers(rows: Sequence[Candidates], answers: Mapping[str, set[str]]) -> Tensor:
    """Number the passages of a batch by their texts, equal ones alike, so that no row takes an answer for a negative.

    Returns (rows, ways + most answers), int64: a row's candidates, then what else answers its query, by `answers` or
    as the relevant passage of another row of that query; filled with -1.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        known[_query(row)] |= {row.passages[0], *answers.get(_query(row), ())}
    numbers = [[_number(text) for text in (*row.passages, *sorted(known[_query(row)]))] for row in rows]
    longest = max(map(len, numbers))
    return torch.tensor([some + [-1] * (longest - len(some)) for some in numbers])


def _query(row: Candidates) -> str:
    return row.query if row.english is None else row.english


def _number(text: str) -> int:
    """Return what is the same for equal texts, in any process: 0 to 2**63 - 1."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
