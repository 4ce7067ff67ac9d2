"""The unigram model in flat arrays against the library's own: the same pieces, the same characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricated_student import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from drdecr.encoder.piece_tokenizer import (
    PieceTokenizer,
    UnigramTokenizer,
    WholeTokenizer,
    read_tokenizer,
)
from drdecr.encoder.unigram import tokenizer_from_sentencepiece

TEN_SCRIPTS = [
    "Hello  wörld,\n\nﬁne Ｆｕｌｌ width",
    "画像を編集するプログラム。ｶﾞｷﾞ",
    "كيف أُثبّت برنامجًا لتحرير الصور؟",
    "โปรแกรมไหนใช้ตัดต่อวิดีโอได้",
    "비밀번호 관리자 \u1112\u1161\u11ab",
    "проигрыватель видео с субтитрами",
    "ᚠᚢᚦᚨᚱᚲ ᚷᚹᚺᚾ ☃☃x☃",
    "עורך טקסט \u200fא\u200eb",
    "मैं लिनक्स कैसे स्थापित करूँ",
    "👨‍👩‍👧 </s> < s> <unk>",
]


Both = tuple[PieceTokenizer, PieceTokenizer]


def both(tokenizer: Tokenizer) -> Both:
    """Return a tokenizer in flat arrays and as the library runs it."""
    lean = read_tokenizer(tokenizer.to_str())
    assert isinstance(lean, UnigramTokenizer)
    return lean, WholeTokenizer(tokenizer)


@pytest.fixture(scope="module")
def base(sentencepiece_model: Path) -> Both:
    return both(tokenizer_from_sentencepiece(sentencepiece_model))


def assert_same(tokenizers: Both, texts: list[str]) -> None:
    lean, whole = tokenizers
    for mine, its in zip(lean.split(texts), whole.split(texts), strict=True):
        assert mine.ids.tolist() == its.ids.tolist()
        assert mine.special.tolist() == its.special.tolist()
        assert mine.spans.tolist() == its.spans.tolist()


def test_ten_scripts_fall_into_the_librarys_pieces(base: Both) -> None:
    assert_same(base, [*TEN_SCRIPTS, "", "   "])
    assert_same(base, [" ".join(TEN_SCRIPTS)])


# Few characters give many ways to split a text into pieces.
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
        | st.text("aeinrst ▁ー東京ม\u0301", max_size=60),
        min_size=20,
        max_size=20,
    )
)
def test_any_text_falls_into_the_librarys_pieces(base: Both, texts: list[str]) -> None:
    assert_same(base, texts)


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.text("abc", min_size=1, max_size=4), st.integers(-9, 0)), min_size=1, max_size=30),
    texts=st.lists(st.text("abcd ", max_size=20), min_size=5, max_size=5),
)
def test_any_vocabulary_is_split_as_the_library_does(pieces: list[tuple[str, int]], texts: list[str]) -> None:
    """Also with equal scores, repeated pieces, and pieces no better than an unknown character."""
    tokenizer = make_tokenizer()
    tokenizer.model = models.Unigram([("<unk>", 0.0), *((piece, float(score)) for piece, score in pieces)], 0, False)
    assert_same(both(tokenizer), texts)


def test_special_tokens_stay_text_and_keep_their_ids() -> None:
    assert_same(both(make_tokenizer()), ["<s> a </s>", "<pad>", "plain"])


def test_tokenizers_of_other_kinds_are_run_by_the_library() -> None:
    bytes_too = make_tokenizer()
    bytes_too.model = models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, True)
    plain = make_tokenizer()
    plain.add_tokens(["[mark]"])
    words = make_tokenizer()
    words.model = models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")
    for tokenizer in (bytes_too, plain, words):
        read = read_tokenizer(tokenizer.to_str())
        assert isinstance(read, WholeTokenizer)
        assert read.split(["a [mark]"])[0].ids.tolist() == tokenizer.encode("a [mark]").ids
