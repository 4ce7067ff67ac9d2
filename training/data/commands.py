"""`drdecr data`: fetch multilingual data sets from package registries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from drdecr.errors import UsageError
from training.data.dictionaries.fetch import fetch_dictionaries
from training.data.fetch import fetch_debian, fetch_homeassistant
from training.data.interfaces.fetch import fetch_interfaces
from training.data.languages import DEFAULT_LANGUAGES, parse_languages

FETCHERS: dict[str, Callable[..., dict[str, object]]] = {
    "homeassistant": fetch_homeassistant,
    "debian": fetch_debian,
    "dictionaries": fetch_dictionaries,
    "interfaces": fetch_interfaces,
}


@click.group()
def data() -> None:
    """Fetch multilingual data from package registries.

    Example: drdecr data fetch homeassistant --out data/homeassistant
    """


@data.command()
@click.argument("name", type=click.Choice(list(FETCHERS)))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory to write.")
@click.option(
    "--languages",
    help=f"Comma-separated codes of the languages beside English.  [default: {','.join(DEFAULT_LANGUAGES)}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def fetch(name: str, out: Path, languages: str | None, as_json: bool) -> None:
    """Fetch a data set: passages, queries with judgments, and training pairs; or pairs to train on.

    homeassistant: interface texts of Home Assistant (Apache-2.0), by pip, in every language.
    debian: package descriptions and their translations, by apt-get, from this machine's own mirror; no root needed.
    dictionaries: words and names with their English, a file a language, by apt-get and pip; in Korean there are names
    only.
    interfaces: menus, settings and messages of GNOME, KDE, LibreOffice and others with their English, a file a
    language, by apt-get.

    Training and evaluation share no text; meta.json in the directory says how it was split. Run the same command
    again to continue after an interruption; finished work is not repeated.

    A shipped recipe names the languages that it reads; fetch them all (`released` also reads ar and th, which are no
    defaults).

    Example: drdecr data fetch debian --out data/debian --languages ja,ko,ru,de,fr,es,pt,zh
    """
    codes = parse_languages(languages)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a directory")
    meta = FETCHERS[name](out, codes)
    if as_json:
        click.echo(json.dumps(meta, ensure_ascii=False))
    else:
        click.echo(describe(out, meta) if "passages" in meta else describe_pairs(out, meta))


def describe(out: Path, meta: Mapping[str, Any]) -> str:
    """Return a few lines for people: what was fetched, and a table of counts by language."""
    lines = [
        f"{meta['name']} {meta['version']} in {out}: {meta['passages']:,} English passages "
        f"({meta['demo_passages']:,} to evaluate on)",
        f"{'':6}{'pairs':>10}{'train queries':>16}{'test queries':>15}",
    ]
    for lang, counts in meta["languages"].items():
        row = f"{lang:6}{counts['pairs']:>10,}{counts['train_queries']:>16,}{counts['test_queries']:>15,}"
        lines.append(row)
    return "\n".join(lines)


def describe_pairs(out: Path, meta: Mapping[str, Any]) -> str:
    """Return a line for each language: how many pairs there are of which source."""
    lines = [f"{meta['name']} in {out}:"]
    for lang, counts in meta["languages"].items():
        parts = ", ".join(f"{source} {count:,}" for source, count in counts.items())
        lines.append(f"{lang:6}{sum(counts.values()):>10,}   {parts}")
    return "\n".join(lines)
