"""The fast tokenizer of the embedded base against SentencePiece itself."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import Tokenizer

from drdecr.encoder.unigram import BEGIN, END, PADDING, UNKNOWN, tokenizer_from_sentencepiece
from drdecr.errors import ModelError

SENTENCES = {
    "ar": ("كيف أُثبّت برنامجًا لتحرير الصور على جهازي؟", "تُكتَب «الأرقام» ١٢٣ و 456 معًا، ﷺ."),
    "de": ("Welches Paket spielt Musik über Bluetooth-Lautsprecher ab?", "Größe: 3 µm² – „Straße“, süß & groß…"),
    "en": ("Don't panic: it's only v2.0.1-rc3 (build #42)!", "A naïve café's résumé; 50% off, e.g. £3½."),
    "es": ("¿Qué programa convierte vídeos a otros formatos?", "¡Año nuevo! El niño comió 1.234,56 kg de piñas."),
    "fr": ("Où trouver un éditeur de texte très léger ?", "L'œuvre coûte 12 € ; « ça va », dit-elle."),
    "it": ("Perché la stampante non è collegata?", "Città, università e perciò: 3º posto, 100 km/h."),
    "ja": (
        "画像を別の形式に変換するにはどうすればいいですか。",
        "ﾊﾝｶｸとＦＵＬＬ　ＷＩＤＴＨ、㌔や①②、がぎぐ・パピプ〜",
    ),
    "ko": ("프린터를 네트워크에 연결하려면 어떻게 해야 하나요?", "값은 3만원이다. ㄱㅏ나다, 뷁!"),
    "nl": ("Welk programma speelt dvd's af op een oude laptop?", "Zo'n coöperatie met ĳs en vis, 's ochtends."),
    "pl": ("Jak zainstalować sterownik karty sieciowej?", "Zażółć gęślą jaźń – źdźbło, 5 zł."),
    "pt": ("Qual pacote faz cópia de segurança do sistema?", "Não há ações; coração à venda: R$ 10,00."),
    "ru": ("Как настроить раскладку клавиатуры в терминале?", "Ёжик съел 5 ½ яблок — «вкусно», №7."),
    "th": ("โปรแกรมไหนใช้ตัดต่อวิดีโอได้", "น้ำแข็งราคา ๑๒๓ บาท กำลังทำงานที่ กรุงเทพฯ"),
    "tr": ("Yazıcıyı ağa nasıl bağlarım?", "İstanbul'da ığdır çöreği, şeker & güneş: %50."),
    "zh": ("哪个软件包可以播放音乐？", "价格：１２３元，約㎏；“引号”、……"),
    "zh-TW": ("哪個套件可以編輯圖片？", "請問「圖書館」在哪裡？臺灣鬱鬱。"),
}
SCRIPTS = {
    "ar": "ARABIC",
    "ja": ("HIRAGANA", "KATAKANA", "CJK"),
    "ko": "HANGUL",
    "ru": "CYRILLIC",
    "th": "THAI",
    "zh": "CJK",
    "zh-TW": "CJK",
}
LETTERS = {
    "de": "äöüß",
    "es": "ñáéíóú¿¡",
    "fr": "éèêçàœù",
    "it": "àèéìòù",
    "nl": "ëïéĳ",
    "pl": "ąćęłńóśźż",
    "pt": "ãõçáéêí",
    "tr": "ğışçöüİ",
}
BETWEEN = (
    "",
    "",
    "",
    " ",
    " ",
    "  ",
    "\u3000",
    "\u00a0",
    "\t",
    "\n",
    ", ",
    "…",
    "-",
    "７",
    "42",
    "½",
    "🙂",
    "👩‍💻",
    "\u200b",
    "ｱ",
)
TEXTS_PER_LANGUAGE = 250


@pytest.fixture(scope="module")
def original(sentencepiece_model: Path) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(sentencepiece_model))


@pytest.fixture(scope="module")
def fast(sentencepiece_model: Path) -> Tokenizer:
    return tokenizer_from_sentencepiece(sentencepiece_model)


def differing(texts: list[str], original: SentencePieceProcessor, fast: Tokenizer) -> list[str]:
    """Return the texts whose pieces differ, but for two ways of the same probability."""
    found = []
    for text, ids in zip(texts, original.encode(texts), strict=True):
        ours = fast.encode(text, add_special_tokens=False).ids
        if ours != ids and abs(score(original, ours) - score(original, ids)) > 1e-3:
            found.append(text)
    return found


def score(original: SentencePieceProcessor, ids: list[int]) -> float:
    return sum(original.get_score(piece) for piece in ids) - 100.0 * ids.count(original.unk_id())


def generated(language: str, original: SentencePieceProcessor) -> list[str]:
    """Return random texts out of the vocabulary's own pieces in a language's letters."""
    names = [original.id_to_piece(index) for index in range(6, original.vocab_size())]
    if language in SCRIPTS:
        pieces = [name for name in names if unicodedata.name(name[-1], "").startswith(SCRIPTS[language])]
    else:
        own = set(LETTERS.get(language, ""))
        latin = [name for name in names if unicodedata.name(name[-1], "").startswith("LATIN")]
        pieces = [name for name in latin if own & set(name)] + latin[:2000]
    rng = random.Random(language)
    return [
        "".join(rng.choice(pieces).replace("▁", " ") + rng.choice(BETWEEN) for _ in range(rng.randint(1, 16)))
        for _ in range(TEXTS_PER_LANGUAGE)
    ]


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences_get_the_pieces_of_sentencepiece(
    language: str, original: SentencePieceProcessor, fast: Tokenizer
) -> None:
    texts = list(SENTENCES[language])
    assert [fast.encode(text, add_special_tokens=False).ids for text in texts] == original.encode(texts)


@pytest.mark.parametrize("language", SENTENCES)
def test_generated_texts_get_the_pieces_of_sentencepiece(
    language: str, original: SentencePieceProcessor, fast: Tokenizer
) -> None:
    assert differing(generated(language, original), original, fast) == []


@pytest.mark.parametrize("form", ["NFD", "NFKD", "NFC"])
def test_decomposed_and_composed_texts_get_the_pieces_of_sentencepiece(
    form: str, original: SentencePieceProcessor, fast: Tokenizer
) -> None:
    texts = [unicodedata.normalize(form, text) for pair in SENTENCES.values() for text in pair]
    assert differing(texts, original, fast) == []


@pytest.mark.parametrize(
    "text",
    [
        " lead",
        "trail  ",
        "a   b",
        "a\r\nb\tc",
        "▁a ▁ b▁",
        "extra_token_id_1",
        "<s> text </s>",
        "</s>",
        "<unk><pad>",
        "हिन्दी தமிழ்",
        "\u3000\u0301x",
        "\ufeffbom",
        "a\u0000b",
        "𠮷野家 𝒜𝓑",
        "ﬁne ǆ ™",
        "x" * 3000,
    ],
)
def test_odd_texts_get_the_pieces_of_sentencepiece(
    text: str, original: SentencePieceProcessor, fast: Tokenizer
) -> None:
    assert fast.encode(text, add_special_tokens=False).ids == original.encode(text)


@pytest.mark.parametrize("text", ["", " ", "\u3000\n\t", "\u200b"])
def test_text_that_normalises_to_nothing_has_no_pieces(text: str, fast: Tokenizer) -> None:
    assert fast.encode(text).tokens == [BEGIN, END]


def test_text_is_wrapped_by_the_models_own_ids(original: SentencePieceProcessor, fast: Tokenizer) -> None:
    ids = fast.encode("hello").ids
    assert ids == [original.bos_id(), *original.encode("hello"), original.eos_id()]
    assert fast.token_to_id(UNKNOWN) == original.unk_id()


def test_padding_takes_the_first_free_id(original: SentencePieceProcessor, fast: Tokenizer) -> None:
    assert fast.token_to_id(PADDING) == original.vocab_size() == 128_000


def test_spelled_special_tokens_stay_text_after_saving(fast: Tokenizer, tmp_path: Path) -> None:
    fast.save(str(tmp_path / "tokenizer.json"))
    reloaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = f"{BEGIN} {END} <s> </s> {PADDING}"
    special = {fast.token_to_id(name) for name in (BEGIN, END, PADDING, UNKNOWN)}
    assert not special & set(reloaded.encode(text, add_special_tokens=False).ids)


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.model").write_bytes(b"\xff\xff not protobuf")
    for name in ("broken.model", "missing.model"):
        with pytest.raises(ModelError, match=name):
            tokenizer_from_sentencepiece(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer_spec": {"model_type": 2}}, "unigram"),
        ({"trainer_spec": {"byte_fallback": True}}, "unknown bytes"),
        ({"normalizer_spec": {"add_dummy_prefix": False}}, "spaces"),
    ],
)
def test_model_of_another_kind_is_refused(
    change: dict[str, dict[str, int]], message: str, sentencepiece_model: Path, tmp_path: Path
) -> None:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(sentencepiece_model.read_bytes())
    for part, values in change.items():
        for name, value in values.items():
            setattr(getattr(proto, part), name, value)
    (tmp_path / "other.model").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=message):
        tokenizer_from_sentencepiece(tmp_path / "other.model")
