"""A directory that appears whole or not at all.

The work happens in a hidden sibling of the wanted directory, which a rename puts in place. A builder holds a lock on
its sibling, so that the next one can tell the rest of a killed build from one that is still running.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from drdecr.errors import ResourceError, SnapshotError, UsageError, is_full_disk
from drdecr.index.manifest import MANIFEST, sync_path, sync_tree
from indexer.lock import writer_lock

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged_directory(out: Path, *, force: bool) -> Iterator[Path]:
    """Give an empty directory that becomes `out` when the block ends well, and vanishes when it does not.

    With `force` an existing snapshot is replaced at the end, in one step where the file system can; until then
    nobody else may change it, as what is added meanwhile would be lost.
    Raises: UsageError when `out` is taken, SnapshotBusyError while another process changes it, ResourceError when the
    disk is full.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow a link that is to be replaced
    check_target(out, force=force)
    with named_trouble(out), replacing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out)
        partial = out.with_name(f".{out.name}.building-{uuid.uuid4().hex[:12]}")
        partial.mkdir()
        lock = _lock(partial)
        try:
            yield partial
            _publish(partial, out, force=force)
        finally:
            if lock is not None:
                os.close(lock)
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replacing(out: Path) -> Iterator[bool]:
    """Let nobody else change the snapshot at `out`, if there is one, until another is in its place; tell whether.

    Raises: SnapshotBusyError while another process changes it.
    """
    if not (out / MANIFEST).is_file():
        yield False
        return
    with writer_lock(out, "replace"):
        yield True


def publish_directory(partial: Path, out: Path, *, force: bool, held: bool = False) -> None:
    """Put a finished directory, a sibling of `out`, in the place of `out`, which a caller may hold by `replacing`.

    Raises: UsageError when `out` is taken, SnapshotBusyError while another process changes it, ResourceError when the
    disk is full.
    """
    with named_trouble(out), nullcontext() if held else replacing(out):
        _publish(partial, out, force=force)


def check_target(out: Path, *, force: bool) -> None:
    """Raises: UsageError when `out` is taken by what may not be replaced."""
    if not os.path.lexists(out):
        return
    if not force:
        raise UsageError(f"{out} exists already; choose another --out, or replace it with --force")
    replaceable = out.is_dir() and not out.is_symlink() and ((out / MANIFEST).is_file() or not any(out.iterdir()))
    if not replaceable:
        raise UsageError(f"{out} is not a snapshot, so --force does not replace it; choose another --out")


def _publish(partial: Path, out: Path, *, force: bool) -> None:
    sync_tree(partial)
    check_target(out, force=force)
    _put_in_place(partial, out)
    sync_path(out.parent)


def _remove_stale(out: Path) -> None:
    for partial in out.parent.glob(f".{out.name}.building-*"):
        lock = _lock(partial)
        if lock is not None:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(lock)


def _lock(directory: Path) -> int | None:
    """Lock a directory for this process; None when another holds it, or it went away."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _put_in_place(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
        return
    if _exchange(partial, out):
        return
    # Another name than a build's: should the process die between the renames, nobody takes this for a remainder.
    old = out.with_name(f".{out.name}.replaced-{uuid.uuid4().hex[:12]}")
    out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return int(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)) == 0


@contextmanager
def named_trouble(out: Path) -> Iterator[None]:
    """Turn what a file system or SQLite reports about writing `out` into one line that says what to do.

    Raises: ResourceError for a full disk, SnapshotError for everything else.
    """
    try:
        yield
    except OSError as problem:
        if is_full_disk(problem):
            raise ResourceError(_full(out)) from None
        raise SnapshotError(f"{out} cannot be written: {problem}") from None
    except sqlite3.OperationalError as problem:
        if "full" in str(problem):
            raise ResourceError(_full(out)) from None
        raise SnapshotError(f"{out} cannot be written: {problem}") from None


def _full(out: Path) -> str:
    with suppress(OSError):
        free = shutil.disk_usage(out.parent).free
        return (
            f"the disk of {out.parent} is full: {out.name} needs more than the {free / 2**20:.0f} MiB that are free"
        )
    return f"the disk of {out.parent} is full"
