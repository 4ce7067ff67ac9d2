"""Debian's package descriptions: parsing apt's Translation files and joining them by Description-md5."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from training.data.apt import TranslationList, read_list
from training.data.languages import DEBIAN_VARIANTS


@dataclass(frozen=True, slots=True)
class Description:
    """A synopsis and the paragraphs below it; a line inside a paragraph is an item of a list."""

    package: str
    md5: str
    synopsis: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n\n".join(self.paragraphs)


@dataclass(frozen=True, slots=True)
class Package:
    """A package's English description and its translations by language, the preferred variant first."""

    english: Description
    translations: Mapping[str, Sequence[Description]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.english.package


def variants(lang: str) -> tuple[str, ...]:
    """Return what Debian calls a language of ours."""
    return DEBIAN_VARIANTS.get(lang, (lang,))


def read_packages(lists: Sequence[TranslationList], languages: Sequence[str]) -> list[Package]:
    """Join the lists; of two descriptions of one package the one with more translations is kept. Sorted by name.

    Raises: FetchError when a list is broken.
    """
    by_code: dict[str, dict[str, Description]] = {}
    for one in sorted(lists, key=lambda entry: (entry.code, entry.path.name)):
        known = by_code.setdefault(one.code, {})
        for description in parse_descriptions(read_list(one.path)):
            known.setdefault(description.md5, description)
    best: dict[str, Package] = {}
    for english in by_code.get("en", {}).values():
        translations = {
            lang: found
            for lang in languages
            if (
                found := [
                    known[english.md5] for code in variants(lang) if english.md5 in (known := by_code.get(code, {}))
                ]
            )
        }
        package = Package(english, translations)
        rival = best.get(package.name)
        if rival is None or len(rival.translations) < len(translations):
            best[package.name] = package
    return sorted(best.values(), key=lambda package: package.name)


def parse_descriptions(text: str) -> Iterator[Description]:
    """Read the stanzas of a Translation file; one that lacks a field is passed over."""
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        body: list[str] = []
        for line in stanza.splitlines():
            if line.startswith((" ", "\t")):
                body.append(line[1:])
            else:
                name, _, value = line.partition(":")
                fields["Description" if name.startswith("Description-") and name != "Description-md5" else name] = (
                    value
                )
        package, md5, synopsis = (
            fields.get(name, "").strip() for name in ("Package", "Description-md5", "Description")
        )
        if package and md5 and synopsis:
            yield Description(package, md5, synopsis, tuple(_paragraphs(body)))


def _paragraphs(body: Iterable[str]) -> Iterator[str]:
    """Join wrapped lines; " ." is a blank line, a further indented line stays its own (Debian policy, 5.6.13)."""
    lines: list[str] = []
    for line in (*body, "."):
        if line.strip() in (".", ""):
            if lines:
                yield "\n".join(lines)
            lines = []
        elif lines and not line.startswith((" ", "\t")):
            lines[-1] += _gap(lines[-1], line.strip()) + line.strip()
        else:
            lines.append(line.strip())


def _gap(left: str, right: str) -> str:
    """Return what a line end stood for: nothing between two characters of a script that is written without spaces."""
    return "" if _is_unspaced(left[-1]) and _is_unspaced(right[0]) else " "


def _is_unspaced(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF" and not unicodedata.name(char, "").startswith("HANGUL")
