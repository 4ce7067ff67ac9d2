"""Home Assistant's interface texts: fetched as a wheel from the Python package index, read without installing."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from drdecr.errors import FetchError, UsageError
from training.data.languages import HOMEASSISTANT_VARIANTS
from training.wheels import PinnedWheel

MEMBER = re.compile(r"homeassistant/components/([^/]+)/translations/([^/]+)\.json")

UNREADABLE = re.compile(r"\{|\[%|[\ud800-\udfff]")

KeyPath = tuple[str, ...]
Strings = dict[KeyPath, str]


RELEASE = PinnedWheel(
    project="homeassistant",
    version="2026.11.0",
    filename="homeassistant-2026.11.0-py3-none-any.whl",
    sha256="7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7",
    python_version="3.14.2",
)


@dataclass(frozen=True, slots=True)
class Integration:
    """The texts of one component: English, and for each language its variants, the preferred one first."""

    name: str
    english: Strings
    translations: Mapping[str, Sequence[Strings]]


def read_wheel(wheel: Path, languages: Sequence[str]) -> Iterator[Integration]:
    """Read every integration's English texts and those of the languages, sorted by name.

    Raises: FetchError when the file is no such wheel; UsageError for a language that it lacks.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield from _read_members(archive, languages)
    except (zipfile.BadZipFile, EOFError, ValueError) as problem:
        raise FetchError(f"{wheel} is broken ({problem}); delete it and run the same command again") from None


def _read_members(archive: zipfile.ZipFile, languages: Sequence[str]) -> Iterator[Integration]:
    members = {(found[1], found[2]): name for name in archive.namelist() if (found := MEMBER.fullmatch(name))}
    codes = {code for _, code in members}
    for lang in languages:
        if not codes.intersection(_variants(lang)):
            offered = ", ".join(sorted(code for code in codes if len(code) <= 3 and code != "en"))
            raise UsageError(f"--languages: homeassistant has no texts in {lang!r}; it has {offered}")
    names = sorted(name for name, code in members if code == "en")
    if not names:
        raise FetchError(f"{archive.filename} holds no English texts where homeassistant keeps them")

    def texts(name: str, code: str) -> Strings:
        member = members.get((name, code))
        return dict(_flat(json.loads(archive.read(member)))) if member else {}

    for name in tqdm(names, desc="reading texts", unit="integration", disable=not sys.stderr.isatty(), leave=False):
        yield Integration(
            name,
            texts(name, "en"),
            {lang: [texts(name, variant) for variant in _variants(lang)] for lang in languages},
        )


def _variants(lang: str) -> tuple[str, ...]:
    return HOMEASSISTANT_VARIANTS.get(lang, (lang,))


def _flat(node: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, (*path, str(key)))
    elif isinstance(node, str) and _is_whole_text(node):
        yield path, node.strip()


def _is_whole_text(text: str) -> bool:
    # Placeholders and references make a text that nobody ever reads as it stands; half a surrogate pair is no text.
    return bool(text.strip()) and not UNREADABLE.search(text)
