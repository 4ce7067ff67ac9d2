"""The translated package descriptions of the machine's own mirror, and no other index target."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drdecr.errors import FetchError, ResourceError
from training.data.clients import Outcome, apt_command, client_failure, run_client
from training.data.files import naming_full_disk
from training.data.private_apt import other_targets, plain_messages, private_options, run_apt, write_settings

OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
}
APT_SUFFIXES = ("", ".lz4", ".zst", *OPENERS)
HELPER_PATHS = ("/usr/lib/apt/apt-helper", "/usr/libexec/apt/apt-helper")


@dataclass(frozen=True, slots=True)
class TranslationList:
    """One downloaded file: the descriptions of one repository in one language, named as apt names it (`pt_BR`)."""

    path: Path
    code: str
    repository: str
    release: str

    @property
    def name(self) -> str:
        """The file's name without the mirror's address."""
        return self.path.name.rpartition("_dists_")[2]


def fetch_translation_lists(state: Path, codes: Sequence[str]) -> list[TranslationList]:
    """Bring the lists of English and the given languages up to date under `state`.

    A broken download is continued by apt; a repository that fails is left out, unless it is the one that has the
    translations. Raises: FetchError; ResourceError without apt-get or disk space.
    """
    state = state.resolve()
    options = private_options(state)
    with naming_full_disk(state):
        write_settings(state, codes, ())
        write_settings(state, codes, other_targets(options, "Translations"))
        command = [*apt_command(), *options, "update"]
        outcome = run_apt(command)
    lists = _downloaded(options)
    _check_complete(lists, codes, command, outcome, state)
    return lists


def read_list(path: Path) -> str:
    """Return the text of a list, however apt compressed it. Raises: FetchError, ResourceError."""
    try:
        if path.suffix in (".lz4", ".zst"):
            outcome = subprocess.run([_helper(), "cat-file", str(path)], capture_output=True, check=False)
            if outcome.returncode != 0:
                raise FetchError(f"{path} is broken; delete it and run the same command again")
            raw = outcome.stdout
        elif path.suffix in OPENERS:
            with OPENERS[path.suffix](path, "rb") as file:
                raw = file.read()
        else:
            raw = path.read_bytes()
    except (EOFError, OSError, lzma.LZMAError) as problem:
        raise FetchError(f"{path} cannot be read ({problem}); delete it and run the same command again") from None
    return raw.decode(errors="replace")


def _downloaded(options: Sequence[str]) -> list[TranslationList]:
    form = "$(CREATED_BY)|$(LANGUAGE)|$(REPO_URI)|$(ORIGIN) $(CODENAME)|$(FILENAME)"
    found = []
    command = [*apt_command(), *options, "indextargets", "--format", form]
    outcome = run_client(command, env=plain_messages())
    if outcome.status != 0:
        raise client_failure("the list of apt's downloads", command, outcome, Path(options[1]).parent)
    for line in outcome.output.splitlines():
        if line.count("|") < 4:
            continue
        target, code, repository, release, filename = line.split("|", 4)
        if target != "Translations":
            continue
        plain = re.sub(r"\.(lz4|zst|gz|bz2|xz|lzma)$", "", filename)
        path = next((path for suffix in APT_SUFFIXES if (path := Path(plain + suffix)).is_file()), None)
        if path is not None:
            found.append(TranslationList(path, code, repository, release.strip()))
    return found


def _check_complete(
    lists: Sequence[TranslationList], codes: Sequence[str], command: Sequence[str], outcome: Outcome, state: Path
) -> None:
    translated = [one for one in lists if one.code != "en"]
    missing = set(codes) - {one.code for one in translated}
    failed = re.findall(r"Failed to fetch (\S+)", outcome.output)
    ours = any(address.startswith(one.repository) for address in failed for one in translated)
    nothing = not translated or not any(one.code == "en" for one in lists)
    # A mirror that answered and has none of these languages is no failure of the download.
    if (missing and ours) or (nothing and (failed or outcome.status != 0)):
        raise client_failure("the package descriptions", command, outcome, state)
    if not lists:
        raise FetchError(
            "apt-get brought no package descriptions: has this machine any package sources (sources.list)?"
        )


def _helper() -> str:
    for candidate in (*HELPER_PATHS, shutil.which("apt-helper")):
        if candidate and Path(candidate).is_file():
            return candidate
    raise ResourceError("apt-helper is missing, which unpacks apt's lists; it comes with the package `apt`")
