"""One interface for all translators, and how a command names one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from drdecr.corpus import Query, read_queries
from drdecr.errors import InputError, UsageError


class Translator(Protocol):
    """Anything that puts queries into English."""

    @property
    def name(self) -> str: ...

    @property
    def is_human(self) -> bool:
        """Whether the translations lie ready, so that a time measured here means nothing."""
        ...

    def translate(self, queries: Sequence[Query]) -> list[str]:
        """Return the English of each query, in their order."""
        ...


class HumanTranslations:
    """English queries of people, from a file of queries with the same ids."""

    is_human = True

    def __init__(self, path: Path) -> None:
        self.name = f"human ({path.name})"
        self._path = path
        self._english = {query.id: query.text for query in read_queries(path)}

    def translate(self, queries: Sequence[Query]) -> list[str]:
        """Look the queries up. Raises: InputError for one that is not there."""
        lacking = next((query.id for query in queries if query.id not in self._english), None)
        if lacking is not None:
            raise InputError(f"has no translation of the query {lacking!r}", path=self._path)
        return [self._english[query.id] for query in queries]


def open_translator(spec: str, lang: str) -> Translator:
    """Open a translator by name: `human:FILE`, `apertium:PAIR` or `model:PATH_OR_NAME`; `{lang}` is filled in.

    Raises: UsageError for another name; ResourceError, ModelError, InputError where it cannot be opened.
    """
    kind, colon, what = spec.replace("{lang}", lang).partition(":")
    if not colon or not what:
        raise UsageError(f"--translator {spec}: expected human:FILE, apertium:PAIR or model:PATH_OR_NAME")
    if kind == "human":
        return HumanTranslations(Path(what))
    if kind == "apertium":
        from training.translators.apertium import Apertium

        return Apertium(what)
    if kind == "model":
        from training.translators.seq2seq import Seq2SeqTranslator

        return Seq2SeqTranslator(what, lang)
    raise UsageError(f"--translator {spec}: there is no {kind!r}; those are human, apertium and model")
