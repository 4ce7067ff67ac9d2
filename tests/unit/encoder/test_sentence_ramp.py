"""How much the sentence vector of a short query counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drdecr.encoder.length_prior import LengthPrior
from drdecr.encoder.torch_runtime import TorchEncoder
from training.evaluation.ranking import relevance

TEXTS = ["music", "music player", "which package plays music and sound on a desktop ?"]
RAMP = 8


@pytest.mark.parametrize("prior", [None, LengthPrior(penalty=0.05)])
def test_sentence_vector_of_a_short_query_counts_by_its_tokens(
    two_stream_student: Path, prior: LengthPrior | None
) -> None:
    plain = TorchEncoder.load(two_stream_student, device="cpu")
    settings = plain.settings.model_copy(update={"length_prior": prior})
    without = TorchEncoder(plain.model, settings, "0" * 64)
    ramped = TorchEncoder(plain.model, settings.model_copy(update={"sentence_ramp": RAMP}), "0" * 64)

    before, after = without.encode(TEXTS, "query"), ramped.encode(TEXTS, "query")
    assert before.sentences is not None and after.sentences is not None
    tokens = np.diff(before.offsets)
    assert tokens[0] < tokens[1] < RAMP <= tokens[2]
    share = np.minimum(1, tokens / RAMP)
    assert np.allclose(after.sentences, before.sentences * share[:, None], atol=1e-6)
    assert (after.vectors == before.vectors).all()

    passages = without.encode(TEXTS, "passage"), ramped.encode(TEXTS, "passage")
    assert passages[0].sentences is not None and passages[1].sentences is not None
    assert (passages[0].sentences == passages[1].sentences).all()

    # What relevance makes of it: the term of the sentence vectors by that share, the tokens' as it was.
    bare = [relevance(replace(one, sentences=None), passages[0], 0.0) for one in (before, after)]
    gained = [relevance(one, passages[0], 0.4) - alone for one, alone in zip((before, after), bare, strict=True)]
    assert np.allclose(gained[1], gained[0] * share[:, None], atol=1e-5)
