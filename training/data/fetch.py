"""Fetching a data set by name: download, build, check the split, write; done work is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drdecr.errors import UsageError
from training.data.apt import fetch_translation_lists
from training.data.debian import read_packages, variants
from training.data.debian_task import build_debian
from training.data.files import naming_full_disk, read_finished, sha256_of, write_data_set
from training.data.homeassistant import RELEASE, read_wheel
from training.data.homeassistant_task import build_homeassistant
from training.data.task import DataSet, texts_on_both_sides
from training.wheels import PinnedWheel, default_cache, download_wheel


def fetch_homeassistant(out: Path, languages: Sequence[str], release: PinnedWheel = RELEASE) -> dict[str, object]:
    """Fetch `homeassistant` into `out` and return its meta; the wheel stays in the user's cache.

    Raises: FetchError, ResourceError, UsageError (a language that it lacks).
    """
    request = {"data": "homeassistant", "version": release.version, "languages": list(languages)}

    def build() -> DataSet:
        wheel = download_wheel(release, default_cache())
        return build_homeassistant(list(read_wheel(wheel, languages)), languages, release)

    return _fetch(out, request, build)


def fetch_debian(out: Path, languages: Sequence[str]) -> dict[str, object]:
    """Fetch `debian` into `out` and return its meta.

    Raises: FetchError, ResourceError, UsageError (the mirror has none of the languages).
    """
    request = {"data": "debian", "languages": list(languages)}

    def build() -> DataSet:
        codes = [code for lang in languages for code in variants(lang)]
        lists = fetch_translation_lists(out / "cache" / "apt", codes)
        present = {one.code for one in lists}
        available = [lang for lang in languages if present.intersection(variants(lang))]
        if not available:
            raise UsageError(f"--languages: this machine's mirror has no translations into {', '.join(languages)}")
        translated = next(one for one in lists if one.code != "en")
        facts = {
            "version": translated.release,
            "languages_without_data": [lang for lang in languages if lang not in available],
            "source": {f"{one.release}: {one.name}": sha256_of(one.path) for one in lists},
        }
        return build_debian(read_packages(lists, available), available, facts)

    return _fetch(out, request, build)


def _fetch(out: Path, request: Mapping[str, object], build: Callable[[], DataSet]) -> dict[str, object]:
    if (finished := read_finished(out, request)) is not None:
        return finished
    with naming_full_disk(out):
        out.mkdir(parents=True, exist_ok=True)
    data = build()
    shared = texts_on_both_sides(data)
    assert not shared, f"{len(shared)} texts on both sides of the split, such as {sorted(shared)[:3]}"
    return write_data_set(out, data, request)
