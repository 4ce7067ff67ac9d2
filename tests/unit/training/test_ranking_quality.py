"""The exact ranking that quality gates stand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drdecr.corpus import Passage, Query
from drdecr.encoder.load import load_encoder
from drdecr.errors import InputError
from training.ranking_quality import JudgedTexts, ndcg_at_10


def test_ndcg_counts_only_judged_queries(tiny_student: Path) -> None:
    encoder = load_encoder(tiny_student, threads=1)
    passages = [Passage(str(i), text) for i, text in enumerate(["apple pie", "boat race", "copper mine"])]
    right = JudgedTexts(
        [Query("a", "apple pie"), Query("unjudged", "x")], passages, {"a": {"0": 1}, "elsewhere": {"1": 1}}
    )
    assert ndcg_at_10(encoder, right) == 1.0
    second = JudgedTexts([Query("a", "apple pie")], passages[:2], {"a": {"1": 1}})
    assert ndcg_at_10(encoder, second) == pytest.approx(1 / np.log2(3))


def test_quality_without_any_judged_query_is_refused(tiny_student: Path) -> None:
    nothing = JudgedTexts([Query("a", "apple")], [Passage("0", "apple")], {"b": {"0": 1}})
    with pytest.raises(InputError, match="judged"):
        ndcg_at_10(load_encoder(tiny_student, threads=1), nothing)
