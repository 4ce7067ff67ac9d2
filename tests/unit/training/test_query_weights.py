"""How much a piece of a query counts before any training."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from training.transfer.query_weights import RAREST, fit_query_weights

WORDS = ["the", "le", "cat", "chat", "?", "unseen"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="unseen"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def test_a_rare_piece_counts_for_more_than_a_common_one(tokenizer: Tokenizer) -> None:
    weights = fit_query_weights(tokenizer, {"en": ["the cat"] + ["the"] * 9}, len(WORDS))
    assert weights[WORDS.index("cat")] > weights[WORDS.index("the")]
    assert weights[WORDS.index("unseen")] == weights.max() == 0


def test_a_piece_counts_as_in_the_language_where_it_is_most_common(tokenizer: Tokenizer) -> None:
    french = {"fr": ["le chat"] + ["le"] * 9}
    alone = fit_query_weights(tokenizer, french, len(WORDS))
    beside = fit_query_weights(tokenizer, {**french, "en": ["the"] * 100 + ["le"]}, len(WORDS))
    assert alone[WORDS.index("le")] == beside[WORDS.index("le")]


def test_a_piece_without_letters_counts_next_to_nothing(tokenizer: Tokenizer) -> None:
    weights = fit_query_weights(tokenizer, {"en": ["the cat ?"] + ["the"] * 9}, len(WORDS)).exp()
    assert weights[WORDS.index("?")] < weights[WORDS.index("cat")] / 100


def test_a_piece_that_every_text_holds_has_a_finite_weight(tokenizer: Tokenizer) -> None:
    weights = fit_query_weights(tokenizer, {"en": ["the"] * int(2 / RAREST)}, len(WORDS))
    assert weights.isfinite().all()
