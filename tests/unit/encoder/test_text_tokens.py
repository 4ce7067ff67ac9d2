"""What is read, what is scored and which characters it was, for every script and any Unicode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fabricated_student import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from drdecr.encoder.piece_tokenizer import read_tokenizer
from drdecr.encoder.settings import StudentSettings
from drdecr.encoder.text_tokens import TextTokenizer
from drdecr.encoder.unigram import PADDING, UNKNOWN, tokenizer_from_sentencepiece

BEGIN, END = 1, 2
BASE = StudentSettings(name="test", dim=4, query_length=8, passage_length=16, pad_id=3, unknown_id=0)


def of_letters(settings: StudentSettings) -> TextTokenizer:
    return TextTokenizer(read_tokenizer(make_tokenizer().to_str()), settings)


@pytest.fixture(scope="module")
def letters() -> TextTokenizer:
    return of_letters(BASE)


@pytest.fixture(scope="module")
def base_tokenizer(sentencepiece_model: Path) -> Tokenizer:
    return tokenizer_from_sentencepiece(sentencepiece_model)


@pytest.fixture(scope="module")
def base(base_tokenizer: Tokenizer) -> TextTokenizer:
    unknown = base_tokenizer.token_to_id(UNKNOWN)
    return TextTokenizer(
        read_tokenizer(base_tokenizer.to_str()),
        BASE.model_copy(update={"passage_length": 64, "pad_id": 128_000, "unknown_id": unknown}),
    )


def highlights(tokenizer: TextTokenizer, text: str) -> list[str]:
    [tokens] = tokenizer.tokenize([text], "passage")
    return [text[start:end] for start, end in tokens.spans]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello world", ["Hello", "world"]),
        ("  spaced   out ", ["space", "d", "out"]),
        ("東京タワーは高い。", ["東京", "タワー", "は", "高い", "。"]),
        ("cafe\u0301 au lait", ["cafe\u0301", "au", "lait"]),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", ["\u1112\u1161\u11ab\u1100\u1173\u11af"]),
        ("ｆｕｌｌ　ｗｉｄｔｈ", ["ｆｕｌｌ", "ｗｉｄｔｈ"]),
        ("½ ㎏", ["½", "㎏"]),
        ("👨‍👩‍👧", ["👨", "👨‍👩‍👧"]),
    ],
)
def test_spans_are_the_characters_of_the_original_text(text: str, pieces: list[str], base: TextTokenizer) -> None:
    assert highlights(base, text) == pieces


@pytest.mark.parametrize(
    "text",
    [
        "น้ำแข็งไทยกำลังละลาย",
        "ภาษาไทย ไม่มีช่องว่าง",
        "كيف أُثبّت برنامجًا؟",
        "شُجِّعَ على القراءة",
        "ﾊﾟﾝとｶﾞﾗｽ",
        "か\u3099き\u3099く",
        "プリンターを接続する",
        "ва\u0306рна и\u0306од",
    ],
)
def test_spans_cover_every_character_but_spaces(text: str, base: TextTokenizer) -> None:
    [tokens] = base.tokenize([text], "passage")
    covered = {position for start, end in tokens.spans for position in range(start, end)}
    assert {position for position, letter in enumerate(text) if not letter.isspace()} <= covered
    assert all(0 <= start < end <= len(text) for start, end in tokens.spans)


def test_marker_goes_after_the_first_token_and_is_not_scored() -> None:
    tokenizer = TextTokenizer(
        read_tokenizer(make_tokenizer().to_str()), BASE.model_copy(update={"query_prefix": (7, 8)})
    )
    [query], [passage] = tokenizer.tokenize(["q"], "query"), tokenizer.tokenize(["q"], "passage")
    assert query.ids[:3].tolist() == [BEGIN, 7, 8]
    assert query.scored.tolist() == list(range(3, len(query.ids) - 1))
    assert np.array_equal(query.ids[query.scored], passage.ids[passage.scored])


def test_text_at_the_limit_is_whole_and_one_token_more_is_cut(letters: TextTokenizer) -> None:
    # Digits have no pairs in the vocabulary: one token each.
    [whole, cut] = letters.tokenize(["123456", "1234567"], "query")
    assert (len(whole.ids), whole.truncated) == (8, False)
    assert (len(cut.ids), cut.truncated) == (8, True)
    assert np.array_equal(whole.ids, cut.ids)
    assert cut.ids[-1] == END


def test_prefix_counts_towards_the_limit() -> None:
    tokenizer = TextTokenizer(
        read_tokenizer(make_tokenizer().to_str()), BASE.model_copy(update={"query_prefix": (7, 8)})
    )
    [tokens] = tokenizer.tokenize(["123456"], "query")
    assert (len(tokens.ids), len(tokens.scored), tokens.truncated) == (8, 4, True)


def test_skipped_ids_are_read_but_not_scored_on_their_side_only() -> None:
    comma = make_tokenizer().token_to_id(",")
    tokenizer = TextTokenizer(
        read_tokenizer(make_tokenizer().to_str()), BASE.model_copy(update={"passage_skip": (comma,)})
    )
    [query], [passage] = tokenizer.tokenize(["1,2"], "query"), tokenizer.tokenize(["1,2"], "passage")
    assert query.ids.tolist() == passage.ids.tolist()
    assert query.spans.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert passage.spans.tolist() == [[0, 1], [2, 3]]


def test_spelled_special_token_is_text(letters: TextTokenizer) -> None:
    [tokens] = letters.tokenize([PADDING], "query")
    assert tokens.spans[-1, 1] == len(PADDING)
    assert 3 not in tokens.ids


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u3000"])
def test_text_without_content_is_not_read(text: str, base: TextTokenizer) -> None:
    [tokens] = base.tokenize([text], "query")
    assert (len(tokens.ids), len(tokens.scored), tokens.unknown, tokens.truncated) == (0, 0, 0.0, False)


def test_unknown_share_tells_a_foreign_script(base: TextTokenizer) -> None:
    known, foreign = base.tokenize(["a known script", "ᚠᚢᚦᚨᚱᚲ ᚷᚹᚺᚾ"], "passage")
    assert known.unknown == 0.0
    assert foreign.unknown >= 0.5


def test_half_a_surrogate_pair_becomes_a_replacement_character(base: TextTokenizer) -> None:
    [broken], [replaced] = base.tokenize(["a\ud83d b"], "query"), base.tokenize(["a\ufffd b"], "query")
    assert np.array_equal(broken.ids, replaced.ids)
    assert np.array_equal(broken.spans, replaced.spans)


@pytest.mark.parametrize("text", ["x" * 2**20, "ab " * 2**18, "漢" * 2**20, " " * 2**20 + "end", "ᚠ" * 2**20])
def test_megabyte_of_text_is_cut_before_it_costs_anything(text: str, base: TextTokenizer) -> None:
    [tokens] = base.tokenize([text], "passage")
    assert 0 < len(tokens.scored) <= 62
    assert tokens.truncated == (not text.endswith("end"))
    assert tokens.spans[0, 0] == len(text) - len(text.lstrip())


def test_padding_and_truncation_of_the_given_tokenizer_do_not_leak() -> None:
    padded = make_tokenizer()
    padded.enable_padding(pad_id=3, pad_token="<pad>", length=12)
    padded.enable_truncation(3)
    [tokens] = TextTokenizer(read_tokenizer(padded.to_str()), BASE).tokenize(["1234"], "query")
    assert len(tokens.ids) == 6


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=60), min_size=1, max_size=4))
def test_any_unicode_gives_tokens_within_the_limit_and_spans_within_the_text(
    base: TextTokenizer, texts: list[str]
) -> None:
    for text, tokens in zip(texts, base.tokenize(texts, "passage"), strict=True):
        assert len(tokens.ids) <= 64
        assert len(tokens.scored) == len(tokens.spans)
        assert all(0 <= start <= end <= len(text) for start, end in tokens.spans.tolist())
        assert 0.0 <= tokens.unknown <= 1.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=30), min_size=2, max_size=5))
def test_batch_of_texts_gives_what_each_alone_gives(base: TextTokenizer, texts: list[str]) -> None:
    together = base.tokenize(texts, "query")
    alone = [base.tokenize([text], "query")[0] for text in texts]
    assert [tokens.ids.tolist() for tokens in together] == [tokens.ids.tolist() for tokens in alone]
    assert [tokens.spans.tolist() for tokens in together] == [tokens.spans.tolist() for tokens in alone]
