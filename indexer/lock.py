"""One writer at a time: an advisory lock on a file of the snapshot.

The kernel lets go of the lock when its holder ends, however it ends; the file stays, and what it says counts only
while it is locked.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from drdecr.errors import SnapshotBusyError, SnapshotError
from drdecr.index.manifest import MANIFEST

LOCK = "writer.lock"
_TAKEN = {errno.EAGAIN, errno.EACCES}


@contextmanager
def writer_lock(snapshot: Path, doing: str) -> Iterator[None]:
    """Be the only one who changes a snapshot; `doing` tells others what goes on.

    Raises: SnapshotBusyError that names the process and host of another writer, SnapshotError for a directory that
    is no snapshot or cannot be written.
    """
    if not (snapshot / MANIFEST).is_file():
        raise SnapshotError(f"{snapshot} is not a snapshot (no {MANIFEST}); make one with `drdecr index build`")
    descriptor = _acquire(snapshot)
    try:
        # Without room to say who holds it, the lock still holds: what follows may be what makes room.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_holder(doing)).encode())
        yield
    finally:
        os.close(descriptor)


def _acquire(snapshot: Path) -> int:
    path = snapshot / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as problem:
            raise SnapshotError(f"{snapshot} cannot be changed: {problem}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A build may have put another snapshot in this place since the file was opened.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError as problem:
            told = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            if problem.errno in _TAKEN:
                raise SnapshotBusyError(
                    f"{snapshot} is being changed by {_describe(told)}; try again when it is done"
                ) from None
            raise SnapshotError(f"{snapshot} cannot be locked: {problem}") from None
        os.close(descriptor)


def _holder(doing: str) -> dict[str, str | int]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "doing": doing, "since": now}


def _describe(told: bytes) -> str:
    try:
        holder = json.loads(told)
        return f"process {holder['pid']} on {holder['host']} ({holder['doing']}, since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
