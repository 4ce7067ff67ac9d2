"""Names that Unicode's CLDR gives in many languages: of emoji, so of everyday things, and of places and units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from drdecr.errors import FetchError
from training.data.dictionaries.entries import Entry, tidy

PATH = re.compile(r"usr/share/unicode/cldr/common/(annotations|subdivisions|main)/([A-Za-z_]+)\.xml")
"""The files that are read: what kind, and which locale."""

# The elements that name something, by the kind of file.
_NAMED = {"annotations": {"annotation"}, "subdivisions": {"subdivision"}}
_MAIN = {"language", "territory", "script", "displayName", "exemplarCity", "month", "day"}
# Short forms, other widths than the whole word, and forms of a word for a count.
_LEFT_OUT = re.compile(r"alt=|count=|type=(?:short|narrow|abbreviated)\b|(?:short|narrow)\]")


def read_cldr(files: Mapping[str, bytes], locales: tuple[str, ...]) -> Iterator[Entry]:
    """Yield what the files of some locales and English name alike. `files` are contents by path.

    Raises: FetchError for a file that is no XML.
    """
    english: dict[tuple[str, str], str] = {}
    for path, content in sorted(files.items()):
        if (found := PATH.fullmatch(path)) and found[2] == "en":
            english.update(_names(path, found[1], content))
    for path, content in sorted(files.items()):
        if (found := PATH.fullmatch(path)) and found[2] in locales:
            for key, word in _names(path, found[1], content):
                if english.get(key, word) != word:
                    yield Entry(tidy(word), tidy(english[key]))


def _names(path: str, kind: str, content: bytes) -> Iterator[tuple[tuple[str, str], str]]:
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as problem:
        raise FetchError(f"{path} is no XML ({problem}); delete the package and run the same command again") from None
    tags = _NAMED.get(kind, _MAIN)

    def walk(element: ElementTree.Element, place: str) -> Iterator[tuple[tuple[str, str], str]]:
        for child in element:
            attributes = "".join(f"[{name}={value}]" for name, value in sorted(child.items()) if name != "draft")
            here = f"{place}/{child.tag}{attributes}"
            yield from walk(child, here)
            # An annotation without a type lists words that are about its emoji, in any order.
            of_emoji = kind != "annotations" or child.get("type") == "tts"
            if child.tag in tags and child.text and of_emoji and not _LEFT_OUT.search(here):
                yield (kind, here), child.text

    return walk(root, "")
