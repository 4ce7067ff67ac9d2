"""Copies of remote snapshots on this machine: held by those who read them, swept when none does."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

_LOCK = ".lock"


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
    for path in sorted(cache.glob(f"*{_LOCK}")):
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
