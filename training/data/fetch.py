"""Fetching a data set by name: download, build, check the split, write; done work is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from training.data.files import naming_full_disk, read_finished, write_data_set
from training.data.homeassistant import RELEASE, Release, download_wheel, read_wheel
from training.data.homeassistant_task import build_homeassistant
from training.data.task import DataSet, texts_on_both_sides


def fetch_homeassistant(out: Path, languages: Sequence[str], release: Release = RELEASE) -> dict[str, object]:
    """Fetch `homeassistant` into `out` and return its meta.

    Raises: FetchError, ResourceError, UsageError (a language that it lacks).
    """
    request = {"data": "homeassistant", "version": release.version, "languages": list(languages)}

    def build() -> DataSet:
        wheel = download_wheel(out / "cache", release)
        return build_homeassistant(list(read_wheel(wheel, languages)), languages, release)

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
