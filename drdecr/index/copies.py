"""Copies of remote snapshots on this machine: held by those who read them, swept when none does."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

VERSION_LENGTH = 32
"""A copy has the first characters of its snapshot's version for a name, so many hexadecimal digits."""

_LOCK = ".lock"
# The directory may hold what is not ours, with locks of its own.
_OURS = re.compile(rf"[0-9a-f]{{{VERSION_LENGTH}}}{re.escape(_LOCK)}")


def cache_directory() -> Path:
    """Return where copies of remote files lie on this machine: DRDECR_CACHE, or a directory of the user's."""
    return Path(os.environ.get("DRDECR_CACHE") or f"{tempfile.gettempdir()}/drdecr-cache-{os.getuid()}")


def hold(cache: Path, version: str) -> int:
    """Keep the copy of a version from being swept for as long as this process lives, or the descriptor is open.

    The copy need not be there yet. Waits where it is being swept.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / (version + _LOCK)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_at(descriptor, path):
            return descriptor
        # It was swept between the two lines.
        os.close(descriptor)


def sweep(cache: Path) -> list[str]:
    """Remove the copies that nobody holds, and return their versions. One that cannot be removed stays."""
    swept = []
    for path in sorted(path for path in cache.glob(f"*{_LOCK}") if _OURS.fullmatch(path.name)):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                version = path.name.removesuffix(_LOCK)
                if (cache / version).exists():
                    shutil.rmtree(cache / version)
                path.unlink()
                swept.append(version)
        except OSError:
            pass
        finally:
            os.close(descriptor)
    return swept


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
