"""What translation models of many languages call a language."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from drdecr.errors import ModelError

_NAMES = {
    "ar": ("arb", "ara"),
    "bn": ("ben",),
    "cs": ("ces",),
    "da": ("dan",),
    "de": ("deu",),
    "el": ("ell",),
    "en": ("eng",),
    "es": ("spa",),
    "fa": ("pes", "fas"),
    "fi": ("fin",),
    "fr": ("fra",),
    "he": ("heb",),
    "hi": ("hin",),
    "hu": ("hun",),
    "id": ("ind",),
    "it": ("ita",),
    "ja": ("jpn",),
    "ko": ("kor",),
    "nb": ("nob",),
    "nl": ("nld",),
    "pl": ("pol",),
    "pt": ("por",),
    "ro": ("ron",),
    "ru": ("rus",),
    "sv": ("swe",),
    "sw": ("swh", "swa"),
    "ta": ("tam",),
    "te": ("tel",),
    "th": ("tha",),
    "tr": ("tur",),
    "uk": ("ukr",),
    "ur": ("urd",),
    "vi": ("vie",),
    "zh": ("zho_Hans", "zho"),
    "zh-TW": ("zho_Hant", "zh_TW", "zh", "zho"),
}
"""ISO 639-1 to what else a model may call it: mostly ISO 639-3, with the script where a language has two."""


def codes_of(tokenizer: Any) -> dict[str, int]:
    """Return the codes of a tokenizer's languages with their token ids; empty where it knows of none.

    M2M100 and mBART say them; NLLB has them among its special tokens alone, as `spa_Latn`.
    """
    told = getattr(tokenizer, "lang_code_to_id", None)
    if told:
        return {str(code): int(number) for code, number in told.items()}
    if not hasattr(tokenizer, "src_lang"):
        return {}
    special = map(str, tokenizer.all_special_tokens)
    codes = [token for token in special if re.fullmatch(r"[a-z]{2,3}_[A-Z][A-Za-z]+", token)]
    return {code: int(tokenizer.convert_tokens_to_ids(code)) for code in codes}


def code_of(codes: Collection[str], lang: str, model: str) -> str:
    """Return the code of a language, found by its own name or by what else it is called. Raises: ModelError."""
    for name in (lang, *_NAMES.get(lang, ())):
        for code in sorted(codes):
            if code == name or code.split("_")[0] == name:
                return code
    raise ModelError(f"{model}: has no code for the language {lang!r}; it has {', '.join(sorted(codes)[:20])}, …")
