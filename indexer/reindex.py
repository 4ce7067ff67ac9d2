"""Builds the next version of an index in a data directory, in two steps that may each be killed and run again.

`build_next` makes the snapshot in the job's own directory; `publish` renames it into place. What a killed attempt
encoded is read back; a version that a killed attempt published is found by the job that it names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from drdecr.collections.directory import BUILD_FILE, DataDirectory, now
from drdecr.collections.files import replace_file, try_lock
from drdecr.collections.records import BuildRecord, IndexRecord, Mode
from drdecr.collections.uploads import built_through, drop_uploads, read_upload, staged_uploads
from drdecr.encoder.types import Encoder
from drdecr.errors import SnapshotBusyError, UnknownNameError
from drdecr.index.manifest import read_manifest, sync_tree, write_manifest
from drdecr.index.reduction import reduction_of
from drdecr.index.snapshot import Snapshot
from indexer.build import build_from_source
from indexer.change import apply_changes
from indexer.changes import Changes
from indexer.encoded_store import EncodedStore
from indexer.generations import changed_snapshot
from indexer.merged_source import MergedSource
from indexer.progress import SILENT, Progress

_LOSSLESS_BITS = 16
_SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Task:
    """A build that a client asked for, of the index with `index_id` where that is known: names are given again."""

    job: str
    index: str
    mode: Mode
    index_id: str | None = None


def build_next(directory: DataDirectory, task: Task, encoder: Encoder, progress: Progress = SILENT) -> bool:
    """Make the next version's snapshot in the job's directory; False where there is nothing to build.

    An incremental build shares the files of the version before it and adds what is staged. It is a full one where
    there is no version yet, or another student built it. A full build writes everything anew; with the same student,
    the same reduction and 16 bits a dimension, stored passages keep their vectors.
    Raises: UnknownNameError for an index that is gone, SnapshotBusyError while a build or a restore of it goes on,
    UsageError for an index of more dimensions than the student has, SnapshotError, ResourceError.
    """
    record = _index(directory, task)
    work = _work(directory, task)
    # Without its parents: an index that was dropped must not come back as a folder that takes its name.
    work.mkdir(exist_ok=True)
    with ExitStack() as stack:
        lock = try_lock(directory.path(task.index) / "build.lock", create=True)
        if lock is None:
            raise SnapshotBusyError(f"a build or a restore of {task.index!r} goes on")
        stack.callback(os.close, lock)
        if directory.version_of(task.index, task.job) is not None or (work / _SNAPSHOT / BUILD_FILE).is_file():
            return True
        numbers = directory.versions(task.index)
        base = numbers[-1] if numbers else None
        uploads = staged_uploads(directory, task.index)
        opened = None
        if base is not None:
            path = directory.version_path(task.index, base)
            # What is decoded and written again gets a new checksum, which would vouch for damage.
            rewritten = task.mode == "full" or read_manifest(path).student.fingerprint != encoder.spec.fingerprint
            opened = stack.enter_context(Snapshot.open(path, verify=rewritten))
        same_student = opened is not None and opened.fingerprint == encoder.spec.fingerprint
        full = task.mode == "full" or not same_student
        if not full and not uploads:
            return False
        changes = stack.enter_context(Changes(work / "changes.sqlite"))
        advance = progress.stage("Reading uploads", len(uploads), "uploads")
        for number in uploads:
            changes.add(read_upload(directory, task.index, number))
            advance(1)
        reduction = reduction_of(record.dims, record.pool, encoder.spec.dim, encoder.spec.name)
        if opened is not None and not full:
            # A version that was restored from another index keeps its own.
            reduction = opened.manifest.reduction
        lossless = opened is not None and all(
            quantizer.codec.bits >= _LOSSLESS_BITS for quantizer in opened.manifest.quantizers
        )
        store = EncodedStore(encoder, work / "encoded")
        alike = opened is not None and same_student and opened.manifest.reduction == reduction
        reuse = alike and (lossless or not full)
        source = MergedSource(encoder, store, opened, changes, full=full, reuse=reuse, reduction=reduction)
        snapshot = work / _SNAPSHOT
        shutil.rmtree(snapshot, ignore_errors=True)
        if full:
            build_from_source(source, snapshot, record.bits, progress)
            deleted = source.deleted_count()
        else:
            assert base is not None
            share_files(directory.version_path(task.index, base), snapshot)
            with changed_snapshot(snapshot, "build", keep=0) as draft:
                deleted = apply_changes(draft, source, changes.deletes(), progress)
            shutil.rmtree(snapshot / "generations", ignore_errors=True)
        built = BuildRecord(
            job=task.job,
            mode="full" if full else "incremental",
            base=base,
            through=max(uploads, default=built_through(directory, task.index)),
            created=now(),
            encoded=source.encoded_count,
            reused=source.reused_count,
            deleted=deleted,
        )
        sync_tree(snapshot)
        replace_file(snapshot / BUILD_FILE, built.model_dump_json())
    return True


def publish(directory: DataDirectory, task: Task, check: Callable[[], None] = lambda: None) -> int:
    """Put the snapshot that `build_next` made in place; return the version's number.

    `check` is called once it is certain that nobody else publishes; what it raises leaves all as it was.
    Raises: SnapshotError where another version came meanwhile, UnknownNameError for an index that is gone.
    """
    with directory.changing():
        _index(directory, task)
        number = directory.version_of(task.index, task.job)
        if number is None:
            check()
            number = directory.add_version(task.index, _work(directory, task) / _SNAPSHOT)
    directory.prune(task.index)
    drop_uploads(directory, task.index)
    shutil.rmtree(_work(directory, task), ignore_errors=True)
    return number


def _index(directory: DataDirectory, task: Task) -> IndexRecord:
    """Return the record of a task's index. Raises: UnknownNameError where it is gone, or another has its name."""
    record = directory.index(task.index)
    if task.index_id is not None and record.id != task.index_id:
        raise UnknownNameError(f"Index {task.index!r} was dropped, and made again: this build was of the one before.")
    return record


def sweep_work(directory: DataDirectory, task: Task) -> None:
    """Delete what a job that has ended left in its own directory, unless a build of the index goes on."""
    lock = try_lock(directory.path(task.index) / "build.lock", create=True)
    if lock is not None:
        # Who publishes holds no build's lock: the snapshot is in place as a whole by now, or is never put there.
        with directory.changing():
            shutil.rmtree(_work(directory, task) / _SNAPSHOT, ignore_errors=True)
        shutil.rmtree(_work(directory, task), ignore_errors=True)
        os.close(lock)


def unfinished(directory: DataDirectory) -> Iterator[Task]:
    """Yield the jobs that have left something in a directory of their own."""
    for index in directory.indexes():
        with suppress(FileNotFoundError):
            for path in (directory.path(index) / "work").iterdir():
                yield Task(path.name, index, "incremental")


def share_files(base: Path, snapshot: Path) -> None:
    """Make a snapshot of the same files as another's: by hard links where the file system has them, else copies.

    No file of a snapshot is ever written again, so that neither sees what changes in the other.
    """
    manifest = read_manifest(base)
    # Without its parents, as in `build_next`.
    snapshot.mkdir()
    for top in ("quantizers", "segments"):
        (snapshot / top).mkdir()
    for name in manifest.paths():
        target = snapshot / name
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(base / name, target)
        except OSError:
            shutil.copyfile(base / name, target)
    write_manifest(snapshot, manifest)


def _work(directory: DataDirectory, task: Task) -> Path:
    return directory.path(task.index) / "work" / task.job
