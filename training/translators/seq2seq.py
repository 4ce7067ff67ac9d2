"""Neural translation: any sequence-to-sequence model of Hugging Face, by path or by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from drdecr.corpus import Query
from drdecr.errors import ModelError
from training.translators.language_codes import code_of, codes_of

_LONGEST = 256
_TEXTS_AT_ONCE = 16


class Seq2SeqTranslator:
    """Translates by the model's own settings of generation, on a GPU where there is one.

    Models of many languages (M2M100, NLLB, mBART) are told both languages, by their own codes: `es` is `es_XX` to
    mBART and `spa_Latn` to NLLB. Where a language is not found so, give the model's code for it.
    """

    is_human = False

    def __init__(self, model: str, lang: str = "") -> None:
        """Load the model. Raises: ModelError."""
        self.name = f"model {Path(model).name}"
        self._tokenizer, self._model = _load(model)
        self._settings: dict[str, Any] = {}
        self._code: str | None = None
        if codes := codes_of(self._tokenizer):
            self._code = code_of(codes, lang, model)
            self._settings["forced_bos_token_id"] = codes[code_of(codes, "en", model)]

    @torch.inference_mode()
    def translate(self, queries: Sequence[Query]) -> list[str]:
        """Translate in batches."""
        if self._code is not None:
            # Translators of other languages have the same tokenizer.
            self._tokenizer.src_lang = self._code
        found: list[str] = []
        for start in range(0, len(queries), _TEXTS_AT_ONCE):
            some = [query.text for query in queries[start : start + _TEXTS_AT_ONCE]]
            inputs = self._tokenizer(some, return_tensors="pt", padding=True, truncation=True, max_length=_LONGEST)
            # Some tokenizers give what the model does not take.
            inputs.pop("token_type_ids", None)
            written = self._model.generate(**inputs.to(self._model.device), **self._settings)
            found += [text.strip() for text in self._tokenizer.batch_decode(written, skip_special_tokens=True)]
        return found


@cache
def _load(model: str) -> tuple[Any, Any]:
    """Load a tokenizer and a model once, whatever the number of languages. Raises: ModelError."""
    local = Path(model).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=local)
        loaded = AutoModelForSeq2SeqLM.from_pretrained(model, local_files_only=local)
    except Exception as problem:  # the library wraps nothing
        reason = " ".join(str(problem).split())[:200]
        raise ModelError(
            f"{model}: cannot be loaded as a translation model ({type(problem).__name__}: {reason})"
        ) from None
    return tokenizer, loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval()
