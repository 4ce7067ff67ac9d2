"""Language codes: two letters in our files, and what Home Assistant, Debian and gettext call the same language."""

from __future__ import annotations

import re

from drdecr.errors import UsageError

DEFAULT_LANGUAGES = (
    "ja",
    "ko",
    "ru",
    "de",
    "fr",
    "es",
    "pt",
    "tr",
    "zh",
    "it",
    "nl",
    "pl",
    "cs",
    "sv",
    "fi",
    "uk",
    "da",
)

# The first variant wins where two translate the same query; text pairs are taken from all of them.
HOMEASSISTANT_VARIANTS = {"pt": ("pt", "pt-BR"), "zh": ("zh-Hans",), "es": ("es", "es-419")}
DEBIAN_VARIANTS = {"pt": ("pt_BR", "pt"), "zh": ("zh_CN",)}
# Both ways of writing Chinese.
_GETTEXT_LOCALES = {"pt": ("pt_BR", "pt"), "zh": ("zh_CN", "zh_TW")}


def gettext_locales(lang: str) -> tuple[str, ...]:
    """Return what gettext, and packages of translations, call a language."""
    return _GETTEXT_LOCALES.get(lang, (lang,))


def parse_languages(option: str | None) -> tuple[str, ...]:
    """Read a comma-separated list of language codes; None gives the default ones.

    Raises: UsageError for an empty list, English, or something that is no code.
    """
    if option is None:
        return DEFAULT_LANGUAGES
    codes = tuple(dict.fromkeys(code for part in option.split(",") if (code := part.strip())))
    for code in codes:
        if not re.fullmatch(r"[a-z]{2,3}", code):
            raise UsageError(f"--languages: {code!r} is no language code; give two letters, such as ja,ko,pt,zh")
        if code == "en":
            raise UsageError("--languages: English is always fetched; name the other languages")
    if not codes:
        raise UsageError("--languages is empty; give codes such as ja,ko,pt,zh")
    return codes
